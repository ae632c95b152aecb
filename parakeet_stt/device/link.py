"""The link between the server and a device: the values that cross it, and the server's side of it.

Nothing else of a device is known to the server, and nothing but values crosses, so that the device can be a process of
its own.
"""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

from parakeet_stt.audio import Audio
from parakeet_stt.protocols import Chunk, ChunkResult, HasAudio, Priority
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis

# Foreground-background scheduling: the recording that has been served least goes first, so that its length need not be
# known when it begins (Kleinrock, Queueing Systems II, 1976).
FIRST_SECONDS = 60.0
BATCHES_AHEAD = 2  # full batches of one recording in the queue, so that the next is there when one is done


@dataclass(frozen=True, slots=True, eq=False)
class Work:
    """One utterance of a recording, or one chunk of live speech. All work of priority LIVE is chunks, and no other.

    owner: equal for work that is scheduled as one flow. phrases: to prefer. recording: as admitted; None if live.
    """

    content: Audio | Chunk
    priority: Priority
    owner: int
    phrases: Phrases
    recording: int | None = None

    @property
    def audio(self) -> Audio:
        """The audio to decode, context included."""
        return self.content.audio if isinstance(self.content, Chunk) else self.content


class Device(Protocol):
    """A device as the server sees it. Any thread may call."""

    @property
    def is_alive(self) -> bool:
        """Whether work that is submitted now will be answered."""
        ...

    @property
    def batch_seconds(self) -> float:
        """Padded seconds that a batch may hold now."""
        ...

    def waiting_seconds(self) -> float:
        """Seconds of audio that have no answer yet."""
        ...

    def memory_bytes(self) -> float:
        """Memory in use on the device."""
        ...

    def admit(self, recording: int) -> None:
        """Admit a recording, or raise Overloaded. It counts as waiting audio until its first work is submitted."""
        ...

    def release(self, recording: int) -> None:
        """The recording is over."""
        ...

    def submit(self, work: Work) -> Future[Any]:
        """Queue work. The future gives a Hypothesis or a ChunkResult, or raises RecognitionError; it can be cancelled.

        Raises RecognitionError if the device is not alive.
        """
        ...

    def close(self) -> None:
        """Finish what is queued, and stop."""
        ...


T = TypeVar("T", bound=HasAudio)


class DeviceClient:
    """The server's access to a device."""

    def __init__(self, device: Device) -> None:
        self._device = device
        self._numbers = itertools.count()

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now will be answered."""
        return self._device.is_alive

    @contextmanager
    def recording(self) -> Iterator[RecordingQueue]:
        """Admit one recording, for as long as the context lasts. Raises Overloaded if too much audio is waiting."""
        number = next(self._numbers)
        self._device.admit(number)
        try:
            yield RecordingQueue(self._device, self._numbers, number)
        finally:
            self._device.release(number)

    def new_owner(self) -> int:
        """A number for the chunks of one live session."""
        return next(self._numbers)

    async def decode_chunk(self, chunk: Chunk, *, owner: int, phrases: Phrases = NO_PHRASES) -> ChunkResult:
        """Decode one chunk; chunks of different owners are decoded together.

        Raises RecognitionError when the model fails on it. Cancelling takes it out of the queue.
        """
        work = Work(chunk, Priority.LIVE, owner, phrases)
        result: ChunkResult = await asyncio.wrap_future(self._device.submit(work))
        return result


class RecordingQueue:
    """One admitted recording's access to the device."""

    def __init__(self, device: Device, numbers: Iterator[int], recording: int) -> None:
        self._device = device
        self._numbers = numbers
        self._recording = recording

    async def recognize(
        self, items: AsyncIterator[T], *, phrases: Phrases = NO_PHRASES
    ) -> AsyncGenerator[tuple[T, Hypothesis], None]:
        """Decode items; yields each with its hypothesis, in order, as soon as it is there.

        phrases: to prefer in all of them. No more items are queued than fill a few batches; the next is read while
        others are decoded. Closing the generator takes those that wait out of the queue.
        Raises RecognitionError when the model fails on one; no other recording notices.
        """
        owner, submitted_seconds, queued_seconds = next(self._numbers), 0.0, 0.0
        pending: deque[tuple[T, asyncio.Future[Hypothesis]]] = deque()
        following: asyncio.Future[T | None] | None = _read_next(items)
        try:
            while following or pending:
                wanted: set[asyncio.Future[Any]] = {pending[0][1]} if pending else set()
                if following and queued_seconds < BATCHES_AHEAD * self._device.batch_seconds:
                    wanted.add(following)
                done, _ = await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
                if following in done:
                    item = following.result()
                    if item is not None:
                        submitted_seconds += item.audio.duration
                        queued_seconds += item.audio.duration
                        priority = Priority.SHORT if submitted_seconds <= FIRST_SECONDS else Priority.LONG
                        work = Work(item.audio, priority, owner, phrases, self._recording)
                        pending.append((item, asyncio.wrap_future(self._device.submit(work))))
                    following = _read_next(items) if item is not None else None
                while pending and pending[0][1].done():
                    item, result = pending.popleft()
                    queued_seconds -= item.audio.duration
                    yield item, result.result()
        finally:
            if following:
                following.cancel()
                await asyncio.wait({following})
            for _, result in pending:
                if not result.cancel() and not result.cancelled():
                    result.exception()  # retrieved, or asyncio logs that it never was


def _read_next(items: AsyncIterator[T]) -> asyncio.Future[T | None]:
    return asyncio.ensure_future(anext(items, None))
