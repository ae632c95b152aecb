"""Speech detection for live streams: the audio of all sessions goes through the detector together, once a tick.

bytes → samples → probabilities. A message costs its session no task, future or thread: its bytes wait for the next
tick. The event loop decodes and resamples a tick's bytes of all streams, has speech detected in all of them with one
call, and delivers the results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

import numpy as np

from parakeet_stt.device.link import DeviceLink, Source
from parakeet_stt.errors import RecognitionError
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.resampling import Filter
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, SpeechDetector
from parakeet_stt.server.live.pcm import Encoding, PcmDecoder
from parakeet_stt.vad import WINDOW_SAMPLES, WINDOW_SECONDS, Probabilities, WindowFramer, Windows

# Time from one tick to the next, at least: for each stream in the first, up to a window of the detector. A few streams
# hardly wait.
TICK_SECONDS_PER_STREAM, MAX_TICK_SECONDS = 0.001, WINDOW_SECONDS
MAX_BYTES = 1 << 15  # of one stream in a tick: a second at 16 kHz, so that a fast sender delays no other stream


class StreamInput:
    """What is kept of one stream between its ticks.

    link, source: where its audio can be decoded. detected: samples that have gone through the detector. state: the
    detector's.
    """

    def __init__(self, encoding: Encoding, made: Filter | None, link: DeviceLink, source: Source) -> None:
        """made: the resampling filter of the stream's rate; None for 16 kHz."""
        self.link = link
        self.source = source
        self.detected = 0
        self.state = np.zeros(DETECTOR_STATE_SHAPE, np.float32)
        self.framer = WindowFramer()
        self._decoder = PcmDecoder(encoding, made)

    @property
    def audio(self) -> SharedAudio:
        """All samples so far."""
        return self.source.audio

    def push(self, data: bytes, *, is_last: bool) -> None:
        """Decode the next bytes into `audio`."""
        self.audio.append(self._decoder.push(data, is_last=is_last))


class LiveDetector(Protocol):
    """Detects speech in what streams have got since the last call."""

    async def detect(self, streams: Sequence[StreamInput], ends: Sequence[bool]) -> Sequence[Probabilities | Exception]:
        """Probability of speech in each window that was completed, stream by stream; with an end in the rest too.

        Instead of a stream's, what made its detection fail; or raises what made all fail.
        """
        ...

    def close(self) -> None:
        """End its thread, if it has one."""
        ...


class LocalDetector:
    """Detects in a thread of this process; see `LiveDetector`."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live-vad")

    async def detect(self, streams: Sequence[StreamInput], ends: Sequence[bool]) -> list[Probabilities]:
        """See `LiveDetector`."""
        windows = [self._windows(stream, is_last=is_last) for stream, is_last in zip(streams, ends, strict=True)]
        if not any(len(own) for own in windows):
            return [np.zeros(0, np.float32)] * len(streams)
        states = np.stack([stream.state for stream in streams])
        loop = asyncio.get_running_loop()
        found, following = await loop.run_in_executor(self._thread, self._detector.detect, windows, states)
        for stream, state in zip(streams, following, strict=True):
            stream.state = state
        return found

    def close(self) -> None:
        """See `LiveDetector`."""
        self._thread.shutdown()

    @staticmethod
    def _windows(stream: StreamInput, *, is_last: bool) -> Windows:
        samples = stream.audio.clip(stream.detected, stream.audio.length).load().samples
        stream.detected = stream.audio.length
        windows = stream.framer.push(samples)
        return np.concatenate([windows, stream.framer.flush()]) if is_last else windows


class RemoteDetector:
    """Detects in the device process; see `LiveDetector`."""

    async def detect(self, streams: Sequence[StreamInput], ends: Sequence[bool]) -> Sequence[Probabilities | Exception]:
        """See `LiveDetector`."""
        found: list[Probabilities | Exception] = [np.zeros(0, np.float32)] * len(streams)
        by_link: dict[DeviceLink, list[int]] = {}
        counts = []
        for index, (stream, is_last) in enumerate(zip(streams, ends, strict=True)):
            waiting = stream.audio.length - stream.detected
            counts.append(-(-waiting // WINDOW_SAMPLES) if is_last else waiting // WINDOW_SAMPLES)
            if counts[-1]:
                by_link.setdefault(stream.link, []).append(index)
        await asyncio.gather(*(self._ask(link, own, streams, counts, found) for link, own in by_link.items()))
        return found

    def close(self) -> None:
        """See `LiveDetector`."""

    @staticmethod
    async def _ask(
        link: DeviceLink,
        own: list[int],
        streams: Sequence[StreamInput],
        counts: list[int],
        found: list[Probabilities | Exception],
    ) -> None:
        asked = [streams[index] for index in own]
        try:
            probabilities, states = await link.detect(
                [stream.source for stream in asked],
                [stream.detected for stream in asked],
                [counts[index] for index in own],
                np.stack([stream.state for stream in asked]),
            )
        except RecognitionError as exc:  # streams on other devices go on
            for index in own:
                found[index] = exc
            return
        for index, stream, got, state in zip(own, asked, probabilities, states, strict=True):
            found[index] = got
            stream.state = state
            stream.detected += counts[index] * WINDOW_SAMPLES


class Feed:
    """One stream's bytes on their way to the detector. The event loop alone uses it.

    deliver: called after each tick with the number of new samples, and the probability of speech in each window that
    they complete. fail: called if the detector fails.
    """

    def __init__(
        self, stream: StreamInput, deliver: Callable[[int, Probabilities], None], fail: Callable[[Exception], None]
    ) -> None:
        self.stream = stream
        self.deliver = deliver
        self.fail = fail
        self.delivered = 0  # samples
        self.is_closed = False
        self.flushed = asyncio.Event()  # set while all bytes are delivered
        self.flushed.set()
        self._pending = bytearray()
        self._ends = False

    @property
    def is_pending(self) -> bool:
        """Whether anything waits for the next tick."""
        return bool(self._pending) or self._ends

    @property
    def pending_bytes(self) -> int:
        """Bytes that wait for the next tick."""
        return len(self._pending)

    def add(self, data: bytes, *, is_last: bool) -> None:
        """More bytes. is_last: the stream ends with them."""
        self._pending += data
        self._ends = self._ends or is_last
        self.flushed.clear()

    def take(self) -> bool:
        """Decode the bytes for one tick; returns whether the stream ends with them."""
        data = bytes(self._pending[:MAX_BYTES])
        del self._pending[:MAX_BYTES]
        ends = self._ends and not self._pending
        self._ends = self._ends and not ends
        self.stream.push(data, is_last=ends)
        return ends


class LiveVad:
    """Detects speech in all live streams of this process."""

    def __init__(self, detector: LiveDetector) -> None:
        self._detector = detector
        self._waiting: dict[Feed, None] = {}  # feeds with pending bytes, in order of arrival
        self._ticking: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # a session waits for its results
        self._next_at = 0.0  # before which no tick begins without hurry, in the event loop's time

    def push(self, feed: Feed, data: bytes, *, is_last: bool = False) -> None:
        """Queue more bytes for the next tick. is_last: the stream ends with them."""
        feed.add(data, is_last=is_last)
        self._waiting[feed] = None
        if self._ticking is None or self._ticking.done():
            self._ticking = asyncio.create_task(self._run())

    async def flush(self, feed: Feed) -> None:
        """Return once all bytes of this feed are delivered."""
        if not feed.flushed.is_set():
            self._hurry.set()
            await feed.flushed.wait()

    def discard(self, feed: Feed) -> None:
        """Deliver nothing more to this feed."""
        feed.is_closed = True
        self._waiting.pop(feed, None)

    def close(self) -> None:
        """End the detector's thread, after the present tick."""
        self._detector.close()

    async def _run(self) -> None:
        """Tick until nothing waits."""
        loop = asyncio.get_running_loop()
        while self._waiting:
            await self._rest(self._next_at - loop.time())
            began = loop.time()
            self._hurry.clear()
            feeds = list(self._waiting)
            ends = [feed.take() for feed in feeds]
            lengths = [feed.stream.audio.length for feed in feeds]
            self._waiting = {feed: None for feed in feeds if feed.is_pending}
            if not self._waiting:  # else it is behind
                self._next_at = began + min(MAX_TICK_SECONDS, TICK_SECONDS_PER_STREAM * len(feeds))
            results: Sequence[Probabilities | Exception]
            try:
                results = await self._detector.detect([feed.stream for feed in feeds], ends)
            except Exception as exc:
                results = [exc] * len(feeds)
            for feed, length, result in zip(feeds, lengths, results, strict=True):
                self._deliver(feed, length, result)

    @staticmethod
    def _deliver(feed: Feed, length: int, result: Probabilities | Exception) -> None:
        count, feed.delivered = length - feed.delivered, length
        if not feed.is_closed:
            try:
                if isinstance(result, Exception):
                    raise result
                feed.deliver(count, result)
            except Exception as exc:
                feed.fail(exc)
        if not feed.is_pending:
            feed.flushed.set()

    async def _rest(self, seconds: float) -> None:
        if seconds > 0 and not self._hurry.is_set():
            try:
                async with asyncio.timeout(seconds):
                    await self._hurry.wait()
            except TimeoutError:
                pass
