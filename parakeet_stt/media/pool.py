"""The pool of media workers: an uploaded file → mono 16 kHz audio, decoded in another process."""

from __future__ import annotations

import json
import logging
import os
import select
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import Samples
from parakeet_stt.errors import AudioError, AudioTooLong, AudioTooShort, UndecodableAudio
from parakeet_stt.media import resampling
from parakeet_stt.media.threads import CpuSlots
from parakeet_stt.media.worker import LENGTH, REQUEST

logger = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "parakeet_stt.media.worker")
ROOT = Path(__file__).parents[2]
MAX_IDLE = 16  # workers kept for later files, of about 10 MB each
MAX_FILES = 100  # of one worker: what a file may have done to it does not last
LARGEST_MESSAGE = 64 << 20  # bytes; no piece of audio has a hundredth of that
REFUSALS: dict[str, type[AudioError]] = {
    kind.__name__: kind for kind in (UndecodableAudio, AudioTooLong, AudioTooShort)
}


class Worker:
    """One media worker, at the other end of a socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("rb")
        self.files = 0  # that it has been sent

    @property
    def is_alive(self) -> bool:
        """Whether its end of the socket is open."""
        poll = select.poll()
        poll.register(self._connection, 0)
        return not poll.poll(0)

    def send(self, source: BinaryIO, max_seconds: float) -> None:
        """Have it decode a file. source: a file with a descriptor, or one that makes a descriptor when asked."""
        self.files += 1
        source.flush()
        socket.send_fds(self._connection, [REQUEST.pack(max_seconds)], [source.fileno()])

    def receive(self) -> bytes:
        """The next message of its answer. Raises EOFError if the worker has ended."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return self._exactly(min(length, LARGEST_MESSAGE))

    def end(self) -> None:
        """End the worker; a thread that waits for a message gets EOFError. Any thread may call."""
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End the worker and close the socket; not while another thread waits for a message."""
        self.end()
        self._incoming.close()
        self._connection.close()

    def _exactly(self, size: int) -> bytes:
        try:
            found = self._incoming.read(size)
        except ConnectionResetError:
            found = b""
        if len(found) < size:
            raise EOFError
        return found


class WorkerPool:
    """The program that forks media workers (`worker.py`), and the workers that are idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Worker] = []
        self._start()

    def borrow(self) -> Worker:
        """A worker that is free, to be returned or closed."""
        with self._lock:
            while self._idle:
                worker = self._idle.pop()
                if worker.is_alive:
                    return worker
                worker.close()
            return self._forked()

    def put_back(self, worker: Worker) -> None:
        """Keep a worker for another file, once it has answered all about the last."""
        with self._lock:
            if len(self._idle) < MAX_IDLE and worker.files < MAX_FILES:
                self._idle.append(worker)
                return
        worker.close()

    def close(self) -> None:
        """End the program and all idle workers; busy workers end when they are closed."""
        with self._lock:
            for worker in self._idle:
                worker.close()
            self._idle.clear()
            self._control.close()
            self._process.wait()

    def _forked(self) -> Worker:
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            except OSError:
                logger.warning("the program that forks media workers has ended and is started again")
                self._control.close()
                self._process.wait()
                self._start()
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
        return Worker(mine)

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            # A process that reads untrusted files gets no keys.
            kept = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
            environment = {**kept, "OPENBLAS_NUM_THREADS": "1"}
            # In a session of its own, so that Ctrl-C reaches the service only, which finishes its requests.
            self._process = subprocess.Popen(  # noqa: S603
                PROGRAM, stdin=theirs.fileno(), cwd=ROOT, env=environment, start_new_session=True
            )


class MediaReader(Iterator[Samples]):
    """Reads a media file: blocks of float32, shape (num_samples,), mono at 16 kHz.

    Blocking; each block may be read by another thread, inside `slots.computing`. on_crash: called when a worker dies of
    the file.
    Iterating raises UndecodableAudio, AudioTooShort at the end, or AudioTooLong; see `demux.open_track`.
    """

    def __init__(
        self,
        source: BinaryIO,
        pool: WorkerPool,
        slots: CpuSlots,
        *,
        max_seconds: float,
        on_crash: Callable[[], None],
    ) -> None:
        self.is_truncated = False  # known once there are no more blocks
        self._pool = pool
        self._slots = slots
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._is_cancelled = False
        self._worker: Worker | None = None
        self._blocks = self._decode(source, max_seconds)

    def __next__(self) -> Samples:
        return next(self._blocks)

    def cancel(self) -> None:
        """Read no further; a thread that waits for a block gets UndecodableAudio. Any thread may call."""
        with self._lock:
            self._is_cancelled = True
            if self._worker:
                self._worker.end()

    def close(self) -> None:
        """Free everything; not while another thread reads a block."""
        self._blocks.close()

    def _decode(self, source: BinaryIO, max_seconds: float) -> Generator[Samples, None, None]:
        worker = self._pool.borrow()
        with self._lock:
            self._worker = worker
            if self._is_cancelled:
                worker.end()
        has_answered = False
        try:
            worker.send(source, max_seconds)
            track = self._message(worker)
            if track:
                yield from resampling.resample_pieces(self._pieces(worker), json.loads(track)["rate"])
            end: dict[str, Any] = json.loads(self._message(worker))
            has_answered = True
        except (EOFError, BrokenPipeError):
            if not self._is_cancelled:
                self._on_crash()
            raise UndecodableAudio(
                "The file could not be decoded: its decoder crashed, or took too much time or memory."
            ) from None
        finally:
            with self._lock:
                self._worker = None
            if has_answered and not self._is_cancelled:
                self._pool.put_back(worker)
            else:
                worker.close()
        if "error" in end:
            raise REFUSALS[end["error"]](end["message"])
        self.is_truncated = end["truncated"]

    def _pieces(self, worker: Worker) -> Iterator[npt.NDArray[np.float32]]:
        while piece := self._message(worker):
            yield np.frombuffer(piece, np.float32)[None]

    def _message(self, worker: Worker) -> bytes:
        with self._slots.waiting():
            return worker.receive()
