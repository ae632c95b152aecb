"""A front's side of the media workers: an uploaded file → blocks of mono 16 kHz audio, decoded in another process."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import logging
import os
import signal
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parakeet_stt.errors import AudioError, AudioTooLong, AudioTooShort, Overloaded, Unavailable, UndecodableAudio
from parakeet_stt.ipc.channel import Channel
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media import messages
from parakeet_stt.media.messages import WORKER_BYTES, Block, Decode, Died, End, NeedFilter, Next
from parakeet_stt.vad import Probabilities

logger = logging.getLogger(__name__)
IDLE_SHARE = 1  # workers kept for later files, of about 40 MB each, for each that may compute
# That more idle workers are kept, for the next of many long files: each is read by one worker to its end, and
# to fork another for the next is a good part of reading a minute of mp3 (docs/benchmarks.md).
SPARE_SECONDS = 2.0
KEPT_BYTES = 64 << 20  # of its own, from which a worker is not kept for another file
MEMORY_BYTES = 4 << 30  # of all workers of a front, unless it says otherwise
MAX_FILES = 100  # of one worker: what a file may have done to it does not last
RETRY_SECONDS = 5
QUIET_SECONDS = 5.0  # that the program may say nothing for; it says each second that it is well
CONNECT_SECONDS, CONNECT_TRIES = 0.05, 200  # the program is started again when it has ended
# What ends a worker that does nothing wrong: an operator, or the system where it has no memory left.
FROM_OUTSIDE = {signal.SIGHUP, signal.SIGINT, signal.SIGQUIT, signal.SIGKILL, signal.SIGTERM}
MAX_LOSSES = 3  # of workers of one file from outside, until its caller is told to come back
STALLED_SECONDS = 10.0  # a file whose worker computes for longer, and then dies of it, is not tried again
# Of two files that nothing is read of yet the one that came first goes first, but as if it had come later the larger it
# is: a megabyte is half a minute of plain speech, which does not wait for many hours of it.
LATER_BYTES, MAX_LATER_SECONDS = 1e6, 30.0
HELD_SECONDS = 5.0  # that a worker counts as one that computes: a file that stalls its worker holds others up no longer
REFUSALS: dict[str, type[AudioError]] = {
    kind.__name__: kind for kind in (UndecodableAudio, AudioTooLong, AudioTooShort)
}


class WorkerLost(Exception):
    """The worker has ended. signal: that has ended it; 0 if it has ended by itself; None if nobody knows."""

    def __init__(self, number: int | None) -> None:
        super().__init__(number)
        self.signal = number

    @property
    def is_from_outside(self) -> bool:
        """Whether something else than the file has ended it."""
        return self.signal is None or self.signal in FROM_OUTSIDE


class Worker:
    """One media worker, at the other end of a connection. One task at a time uses it."""

    def __init__(self, connection: socket.socket) -> None:
        self._channel = Channel(connection, self._receive, self._lose)
        self._answer: asyncio.Future[NeedFilter | Block | End] | None = None
        self._signal: int | None = None
        self.is_alive = True
        self.files = 0  # that it has been sent
        self.memory = 0  # bytes that it has taken for itself: by its last answer about this file, or at most
        self.asked_at = 0.0
        self.returned = 0  # which of all returns to the pool its last one was

    async def ask(self, message: Decode | Next, descriptors: tuple[int, ...] = ()) -> NeedFilter | Block | End:
        """Its answer to a message. Raises WorkerLost."""
        self.asked_at = time.monotonic()
        if not self.is_alive:
            raise WorkerLost(self._signal)
        if isinstance(message, Decode):
            self.memory = WORKER_BYTES
        self._answer = asyncio.get_running_loop().create_future()
        self._channel.send(messages.encode(message), descriptors)
        answer = await self._answer
        if not isinstance(answer, NeedFilter):
            self.memory = answer.memory
        return answer

    def close(self) -> None:
        """End the worker, whatever it is doing."""
        self.is_alive = False
        self._channel.close()

    def _receive(self, message: bytes, _: list[int]) -> None:
        answer = messages.decode_answer(message)
        if isinstance(answer, Died):
            self._signal = answer.signal
        elif self._answer and not self._answer.done():
            self._answer.set_result(answer)

    def _lose(self) -> None:
        self.is_alive = False
        if self._answer and not self._answer.done():
            self._answer.set_exception(WorkerLost(self._signal))


class _Slots:
    """A semaphore whose waiters have priorities: the smallest goes first, and of two equal ones the first."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[tuple[float, float], int, asyncio.Future[None]]] = []  # a heap
        self._numbers = itertools.count()

    async def acquire(self, priority: tuple[float, float]) -> None:
        """Take a slot once there is one."""
        if self._free:  # then nobody waits
            self._free -= 1
            return
        turn = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (priority, next(self._numbers), turn))
        try:
            await turn
        except asyncio.CancelledError:
            if not turn.cancelled():  # it got the slot meanwhile
                self.release()
            raise

    def release(self) -> None:
        """Give a slot back: the first waiter gets it."""
        while self._waiting:
            _, _, turn = heapq.heappop(self._waiting)
            if not turn.done():
                turn.set_result(None)
                return
        self._free += 1


class WorkerPool:
    """The workers of one front that are idle, and the way to more."""

    def __init__(self, path: Path, *, computing: int, memory: int = MEMORY_BYTES) -> None:
        """path: of the socket of the program that forks workers. computing: workers that compute at once.

        memory: bytes that all workers may take together.
        """
        self._path = path
        self._memory = memory
        self._busy: set[Worker] = set()
        self._idle: list[Worker] = []  # the one that was used last at the end
        self._returns = 0
        self._max_idle = IDLE_SHARE * computing
        self._slots = _Slots(computing)

    @property
    def is_served(self) -> bool:
        """Whether the program that forks workers is there, and has lately touched its socket's file."""
        try:
            return time.time() - self._path.stat().st_mtime < QUIET_SECONDS
        except OSError:
            return False

    @asynccontextmanager
    async def slot(self, blocks: int, upload_bytes: int) -> AsyncIterator[None]:
        """Wait until another worker may compute, and count it while the context lasts, for `HELD_SECONDS` at most
        if there is memory for one more.

        blocks: that the worker has read of its file. The worker with the fewest goes first, so that long files, and
        files that are longer than they look, delay the beginning of no other. upload_bytes: of the file; see
        `LATER_BYTES`.
        """
        later = min(upload_bytes / LATER_BYTES, MAX_LATER_SECONDS)
        await self._slots.acquire((blocks, time.monotonic() + later))
        held, loop = [True], asyncio.get_running_loop()
        timer = loop.call_later(HELD_SECONDS, lambda: give_up())

        def give_up() -> None:
            nonlocal timer
            if sum(one.memory for one in self._busy) + WORKER_BYTES > self._memory:
                timer = loop.call_later(HELD_SECONDS, give_up)  # no other may begin
                return
            held.clear()
            self._slots.release()

        try:
            yield
        finally:
            timer.cancel()
            if held:
                self._slots.release()

    async def borrow(self) -> Worker:
        """A worker that is free, to be returned or closed. Raises Unavailable if the program does not come back."""
        while self._idle:
            worker = self._idle.pop()
            if worker.is_alive:
                self._busy.add(worker)
                return worker
            worker.close()
        loop = asyncio.get_running_loop()
        for _ in range(CONNECT_TRIES):
            connection = socket.socket(socket.AF_UNIX)
            connection.setblocking(False)
            try:
                await loop.sock_connect(connection, str(self._path))
            except OSError:
                connection.close()
                await asyncio.sleep(CONNECT_SECONDS)
                continue
            except BaseException:
                connection.close()
                raise
            worker = Worker(connection)
            self._busy.add(worker)
            return worker
        raise Unavailable("The server can't decode files now. Please retry.", retry_after=RETRY_SECONDS)

    def put_back(self, worker: Worker) -> None:
        """Keep a worker for another file, once it has answered all about the last."""
        if not worker.is_alive or worker.memory >= KEPT_BYTES or worker.files >= MAX_FILES:
            self.end(worker)
            return
        self._returns += 1
        worker.returned = self._returns
        self._busy.discard(worker)
        self._idle.append(worker)
        if len(self._idle) > self._max_idle:
            asyncio.get_running_loop().call_later(SPARE_SECONDS, self._end_spare, self._returns)

    def _end_spare(self, returns: int) -> None:
        """End the idle workers that are too many and were not used since so many returns."""
        while len(self._idle) > self._max_idle and self._idle[0].returned <= returns:
            self._idle.pop(0).close()

    def end(self, worker: Worker) -> None:
        """End a worker, whatever it is doing."""
        self._busy.discard(worker)
        worker.close()

    def check_memory(self, worker: Worker) -> None:
        """Raise Overloaded if the workers take too much together, and this one more than its share."""
        if sum(one.memory for one in self._busy) > self._memory < worker.memory * len(self._busy):
            raise Overloaded(
                "The server has no memory for this file beside the others that it reads now. Please retry.",
                retry_after=RETRY_SECONDS,
            )

    def close(self) -> None:
        """End all idle workers; busy workers end when they are closed."""
        while self._idle:
            self._idle.pop().close()


@dataclass(frozen=True, slots=True)
class MediaSettings:
    """max_seconds: of audio to decode. filters: folder of the resampling filters. make_filter: puts one there.

    on_crash: called when a worker dies of a file.
    """

    max_seconds: float
    filters: Path
    make_filter: Callable[[int], Awaitable[None]]
    on_crash: Callable[[], None]


class MediaReader:
    """Reads a media file into shared audio, block by block.

    A worker that dies is replaced once, and the new one goes on after the blocks that are read.
    """

    def __init__(
        self, upload: int, audio: SharedAudio, pool: WorkerPool, settings: MediaSettings, channel: int | None = None
    ) -> None:
        """upload: the file's descriptor, which no other reader uses meanwhile. audio: what is decoded goes there.

        channel: the only one to decode, from 0; None for the mean of all.
        """
        self._upload = upload
        self._channel = channel
        self._audio = audio
        self._pool = pool
        self._settings = settings
        self._worker: Worker | None = None
        self._first: Block | End | None = None  # answer, if it was asked for before the blocks
        self._blocks = 0  # that are read
        self._losses = self._faults = 0  # of its workers: from outside, and by this file
        self.is_truncated = False  # whether the file ends before the length it announces; known at its end

    async def count_channels(self) -> int:
        """The file's channels; reads its first block, which `blocks` gives. 1 where there is none."""
        self._first = await self._next()
        return self._first.channels if isinstance(self._first, Block) else 1

    async def blocks(self) -> AsyncIterator[Probabilities | None]:
        """Read the next block, until there are no more; yields the probabilities of speech in its windows.

        None where the workers have no detector. Raises UndecodableAudio, AudioTooShort at the end, or AudioTooLong;
        see `demux.open_track`.
        """
        end: End | None = None
        while end is None:
            answer, self._first = self._first or await self._next(), None
            if isinstance(answer, End):
                end = answer
                continue
            self._blocks += 1
            self._audio.extend(answer.samples)
            yield None if answer.probabilities is None else np.frombuffer(answer.probabilities, np.float32)
            end = answer.end
        if end.error is not None:
            raise REFUSALS[end.error](end.message)
        self.is_truncated = end.is_truncated

    def close(self) -> None:
        """Free everything, and end the worker if it still decodes."""
        if self._worker:
            self._pool.end(self._worker)
            self._worker = None

    async def _next(self) -> Block | End:
        """The next block, or the end; from another worker if the present one dies.

        Raises UndecodableAudio if two die of the file, and Unavailable if several are ended from outside.
        """
        while True:
            try:
                async with self._pool.slot(self._blocks, os.fstat(self._upload).st_size):
                    answer = await self._ask()
            except WorkerLost as lost:
                seconds = time.monotonic() - self._worker.asked_at if self._worker else 0.0
                self.close()
                if lost.is_from_outside:
                    self._lose(lost)
                    continue
                self._faults += 1
                if self._faults > 1 or seconds > STALLED_SECONDS:
                    self._settings.on_crash()
                    raise UndecodableAudio(
                        "The file could not be decoded: its decoder crashed, or took too much time or memory."
                    ) from None
                continue
            if self._worker and (isinstance(answer, End) or answer.end is not None):
                self._pool.put_back(self._worker)
                self._worker = None
            elif self._worker:
                self._pool.check_memory(self._worker)
            return answer

    def _lose(self, lost: WorkerLost) -> None:
        """Count a worker that was ended from outside. Raises Unavailable when it was one too many."""
        self._losses += 1
        logger.warning("a media worker was ended from outside, by signal %s", lost.signal or "unknown")
        if self._losses == MAX_LOSSES:
            raise Unavailable(
                "The processes that decode files are being ended. Please retry.", retry_after=RETRY_SECONDS
            )

    async def _ask(self) -> Block | End:
        if self._worker:
            answer = await self._worker.ask(Next())
        else:
            worker = self._worker = await self._pool.borrow()
            worker.files += 1
            settings = self._settings
            asked = Decode(settings.max_seconds, str(settings.filters), self._blocks, self._channel)
            # The worker's own descriptor of the same open file: its place in it is shared with ours.
            os.lseek(self._upload, 0, os.SEEK_SET)
            answer = await worker.ask(asked, (self._upload, self._audio.descriptor))
        while isinstance(answer, NeedFilter):
            await self._settings.make_filter(answer.rate)
            assert self._worker is not None
            answer = await self._worker.ask(Next())
        return answer
