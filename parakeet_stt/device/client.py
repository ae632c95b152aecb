"""What fronts do with devices: recordings and live sessions, each on the device with the least to do."""

from __future__ import annotations

import asyncio
import itertools
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, TypeVar

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.link import DeviceLink, Source
from parakeet_stt.ipc.shared_audio import SharedAudio, SharedClip
from parakeet_stt.protocols import (
    Chunk,
    ChunkResult,
    DetectorStates,
    HasAudio,
    Priority,
    SpeakerChunk,
    SpeakerLayout,
    SpeakerResult,
)
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis
from parakeet_stt.vad import Probabilities

# Foreground-background scheduling: the recording that has been served least goes first, so that its length need not be
# known when it begins (Kleinrock, Queueing Systems II, 1976).
FIRST_SECONDS = 60.0
BATCHES_AHEAD = 2  # full batches of one recording in the queue, so that the next is there when one is done


T = TypeVar("T", bound=HasAudio)


class DeviceClient:
    """A front's access to the devices."""

    def __init__(self, links: Sequence[DeviceLink]) -> None:
        self._links = links
        self._owners = itertools.count()

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now is answered without waiting for a device process to start."""
        return any(link.is_alive for link in self._links)

    def start(self) -> None:
        """Begin to exchange messages, in the running event loop."""
        for link in self._links:
            link.start()

    def close(self) -> None:
        """Close all links."""
        for link in self._links:
            link.close()

    @contextmanager
    def recording(self, audio: SharedAudio) -> Iterator[RecordingQueue]:
        """Admit one recording, for as long as the context lasts. Raises Overloaded if too much audio is waiting."""
        link = self._choose()
        link.ledger.admit()
        source = link.open(audio)
        queue = RecordingQueue(link, source, self._owners)
        try:
            yield queue
        finally:
            queue.close()
            link.close_source(source)

    @contextmanager
    def session(self, audio: SharedAudio) -> Iterator[SessionQueue]:
        """Admit one live session, for as long as the context lasts. Raises Overloaded if too many are open."""
        link = self._choose()
        with link.ledger.session():
            source = link.open(audio)
            try:
                yield SessionQueue(link, source)
            finally:
                link.close_source(source)

    async def make_filter(self, rate: int) -> None:
        """Make the resampling filter for a rate in Hz; see `media.filters`."""
        await self._choose().make_filter(rate)

    def waiting_seconds(self) -> float:
        """Seconds of audio of all fronts that have no answer yet, on all devices."""
        return sum(link.ledger.waiting_seconds() for link in self._links)

    def speed(self) -> float:
        """Padded seconds that all devices decode in a second."""
        return sum(link.ledger.speed for link in self._links)

    def open_sessions(self) -> int:
        """Live sessions of all fronts, on all devices."""
        return sum(link.ledger.open_sessions for link in self._links)

    def max_sessions(self) -> int:
        """Live sessions that all devices take on."""
        return sum(link.ledger.max_sessions for link in self._links)

    def _choose(self) -> DeviceLink:
        if len(self._links) == 1:
            return self._links[0]
        return min(self._links, key=lambda link: (not link.is_alive, link.ledger.waiting_seconds()))


class SessionQueue:
    """One admitted session's access to its device."""

    def __init__(self, link: DeviceLink, source: Source) -> None:
        self.link = link
        self.source = source

    def decode_chunk(self, chunk: Chunk, *, phrases: Phrases = NO_PHRASES) -> asyncio.Future[ChunkResult]:
        """Decode one chunk of the session's audio; chunks of different sessions are decoded together.

        The future raises RecognitionError when the model fails on it. Cancelling takes it out of the queue.
        """
        clip = chunk.audio
        assert isinstance(clip, SharedClip)
        return self.link.decode_chunk(
            self.source,
            clip,
            left_context=chunk.left_context,
            right_context=chunk.right_context,
            state=chunk.state,
            phrases=phrases,
        )


class RecordingQueue:
    """One admitted recording's access to its device."""

    def __init__(self, link: DeviceLink, source: Source, owners: Iterator[int], *, is_read: bool = False) -> None:
        """is_read: whether any of its audio is known."""
        self._link = link
        self._source = source
        self._owners = owners
        self._is_read = is_read

    def close(self) -> None:
        """The recording is over."""
        self._read()

    @contextmanager
    def beside(self, audio: SharedAudio) -> Iterator[RecordingQueue]:
        """More audio of the same recording, such as another channel: it is not admitted anew."""
        source = self._link.open(audio)
        try:
            yield RecordingQueue(self._link, source, self._owners, is_read=True)
        finally:
            self._link.close_source(source)

    async def detect(
        self, first_window_at: int, windows: int, states: DetectorStates
    ) -> tuple[Probabilities, DetectorStates]:
        """Detect speech in the next windows of the recording; see `protocols.SpeechDetector`."""
        (found,), following = await self._link.detect([self._source], [first_window_at], [windows], states)
        return found, following

    @property
    def speaker_layout(self) -> SpeakerLayout | None:
        """How the device's diarizer takes a recording; None if it has none."""
        return self._link.speaker_layout

    async def diarize(self, chunk: SpeakerChunk) -> SpeakerResult:
        """Tell the speakers in the next part of the recording. Raises RecognitionError when the model fails on it."""
        clip = chunk.audio
        assert isinstance(clip, SharedClip)
        priority = Priority.SHORT if clip.span.start < FIRST_SECONDS * SAMPLE_RATE else Priority.LONG
        return await self._link.diarize(self._source, chunk, priority=priority, owner=self._source.number)

    async def recognize(
        self, items: AsyncIterator[T], *, phrases: Phrases = NO_PHRASES
    ) -> AsyncGenerator[tuple[T, Hypothesis], None]:
        """Decode items; yields each with its hypothesis, in order, as soon as it is there.

        phrases: to prefer in all of them. No more items are queued than fill a few batches; the next is read while
        others are decoded. Closing the generator takes those that wait out of the queue.
        Raises RecognitionError when the model fails on one; no other recording notices.
        """
        owner, submitted_seconds, queued_seconds = next(self._owners), 0.0, 0.0
        pending: deque[tuple[T, asyncio.Future[Hypothesis]]] = deque()
        reading = _Reading(items)
        try:
            while reading.following or pending:
                wanted: set[asyncio.Future[Any]] = {pending[0][1]} if pending else set()
                if reading.following and queued_seconds < BATCHES_AHEAD * self._link.ledger.batch_seconds:
                    wanted.add(reading.following)
                await asyncio.wait(wanted, return_when=asyncio.FIRST_COMPLETED)
                if reading.following in wanted and (item := reading.take()) is not None:
                    clip = item.audio
                    assert isinstance(clip, SharedClip)
                    submitted_seconds += clip.duration
                    queued_seconds += clip.duration
                    self._read()
                    priority = Priority.SHORT if submitted_seconds <= FIRST_SECONDS else Priority.LONG
                    answer = self._link.recognize(self._source, clip, priority=priority, owner=owner, phrases=phrases)
                    pending.append((item, answer))
                while pending and pending[0][1].done():
                    item, answer = pending.popleft()
                    queued_seconds -= item.audio.duration
                    yield item, answer.result()
        finally:
            await reading.cancel()
            for _, answer in pending:
                if not answer.cancel() and not answer.cancelled():
                    answer.exception()  # retrieved, or asyncio logs that it never was

    def _read(self) -> None:
        if not self._is_read:
            self._is_read = True
            self._link.ledger.read()


class _Reading(Generic[T]):
    """Reads the next of some items in a task. following: the task; None once there are no more items."""

    def __init__(self, items: AsyncIterator[T]) -> None:
        self._items = items
        self.following: asyncio.Future[T | None] | None = self._read_next()

    def take(self) -> T | None:
        """The item, if it is there, and the next is read from now on."""
        assert self.following is not None
        if not self.following.done():
            return None
        item = self.following.result()
        self.following = None if item is None else self._read_next()
        return item

    async def cancel(self) -> None:
        """Read no further."""
        if self.following:
            self.following.cancel()
            await asyncio.wait({self.following})

    def _read_next(self) -> asyncio.Future[T | None]:
        return asyncio.ensure_future(anext(self._items, None))
