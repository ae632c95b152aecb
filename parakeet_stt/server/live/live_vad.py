"""Speech detection for live streams: the audio of all sessions goes through the detector together, once a tick.

bytes → samples → windows → probabilities. A message costs its session no task, future or thread: its bytes wait for the
next tick. One thread computes a tick for all streams; the event loop then delivers the results.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from parakeet_stt.audio import Samples
from parakeet_stt.media.threads import lower_priority
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, SpeechDetector
from parakeet_stt.server.live.pcm import Encoding, PcmDecoder
from parakeet_stt.vad import Probabilities, WindowFramer, Windows

# Time from one tick to the next: for each stream in the last tick, and at most. A few streams wait for nothing.
TICK_SECONDS_PER_STREAM, MAX_TICK_SECONDS = 0.001, 0.02
MAX_BYTES = 1 << 15  # of one stream in a tick: a second at 16 kHz, so that a fast sender delays no other stream

Detected = tuple[Samples, Probabilities]


class StreamInput:
    """What is kept of one stream between its messages."""

    def __init__(self, encoding: Encoding, rate: int) -> None:
        """rate: in Hz. Slow for rates that are seldom used; see `PcmDecoder`."""
        self._decoder = PcmDecoder(encoding, rate)
        self._framer = WindowFramer()
        self.state = np.zeros(DETECTOR_STATE_SHAPE, np.float32)

    def push(self, data: bytes, *, is_last: bool) -> tuple[Samples, Windows]:
        """Samples of the next bytes, and the windows that they complete; with is_last the rest too."""
        samples = self._decoder.push(data, is_last=is_last)
        windows = self._framer.push(samples)
        return samples, np.concatenate([windows, self._framer.flush()]) if is_last else windows


class Feed:
    """One stream's bytes on their way to the detector. The event loop alone uses it.

    deliver: called with the samples of each tick, and the probability of speech in each window that they complete.
    fail: called if the detector fails.
    """

    def __init__(
        self, stream: StreamInput, deliver: Callable[[Samples, Probabilities], None], fail: Callable[[Exception], None]
    ) -> None:
        self.stream = stream
        self.deliver = deliver
        self.fail = fail
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

    def take(self) -> tuple[bytes, bool]:
        """The bytes for one tick, and whether the stream ends with them."""
        data = bytes(self._pending[:MAX_BYTES])
        del self._pending[:MAX_BYTES]
        ends = self._ends and not self._pending
        self._ends = self._ends and not ends
        return data, ends


class LiveVad:
    """Detects speech in all live streams."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="live-vad", initializer=lower_priority)
        # One thread, so that a hundred clients with odd sample rates build one filter after another.
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="live-open", initializer=lower_priority)
        self._waiting: dict[Feed, None] = {}  # feeds with pending bytes, in order of arrival
        self._ticking: asyncio.Task[None] | None = None
        self._hurry = asyncio.Event()  # a session waits for its results

    def open_input(self, encoding: Encoding, rate: int) -> asyncio.Future[StreamInput]:
        """A new stream, made off the event loop, which a filter for an odd rate would stall."""
        return asyncio.get_running_loop().run_in_executor(self._opening, StreamInput, encoding, rate)

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
        """End the threads, after the present tick."""
        self._thread.shutdown()
        self._opening.shutdown(cancel_futures=True)

    async def _run(self) -> None:
        """Tick until nothing waits."""
        loop = asyncio.get_running_loop()
        self._hurry = asyncio.Event()  # of this loop
        while self._waiting:
            began = loop.time()
            self._hurry.clear()
            feeds = list(self._waiting)
            taken = [(feed.stream, *feed.take()) for feed in feeds]
            self._waiting = {feed: None for feed in feeds if feed.is_pending}
            is_behind = bool(self._waiting)
            try:
                results: Sequence[Detected | Exception] = await loop.run_in_executor(self._thread, self._detect, taken)
            except Exception as exc:
                results = [exc] * len(feeds)
            for feed, result in zip(feeds, results, strict=True):
                self._deliver(feed, result)
            if not is_behind:
                tick = min(MAX_TICK_SECONDS, TICK_SECONDS_PER_STREAM * len(feeds))
                await self._rest(began + tick - loop.time())

    @staticmethod
    def _deliver(feed: Feed, result: Detected | Exception) -> None:
        if not feed.is_closed:
            try:
                if isinstance(result, Exception):
                    raise result
                feed.deliver(*result)
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

    def _detect(self, taken: list[tuple[StreamInput, bytes, bool]]) -> list[Detected]:
        inputs = [stream.push(data, is_last=ends) for stream, data, ends in taken]
        found: list[list[float]] = [[] for _ in taken]
        for place in range(max((len(windows) for _, windows in inputs), default=0)):
            busy = [index for index, (_, windows) in enumerate(inputs) if len(windows) > place]
            probabilities, states = self._detector.detect(
                np.stack([inputs[index][1][place] for index in busy]),
                np.stack([taken[index][0].state for index in busy]),
            )
            for row, index in enumerate(busy):
                found[index].append(float(probabilities[row]))
                taken[index][0].state = states[row]
        return [(samples, np.array(own, np.float32)) for (samples, _), own in zip(inputs, found, strict=True)]
