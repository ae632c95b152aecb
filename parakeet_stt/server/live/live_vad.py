"""Speech detection for live streams: one thread takes the messages of all sessions through the detector together.

bytes → samples → windows → probabilities.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from parakeet_stt.audio import Samples
from parakeet_stt.media.threads import lower_priority
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, SpeechDetector
from parakeet_stt.server.live.pcm import Encoding, PcmDecoder
from parakeet_stt.vad import Probabilities, WindowFramer, Windows

MAX_MESSAGES = 256  # of different sessions, whose windows are detected in one call


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


@dataclass(frozen=True, slots=True, eq=False)
class _Message:
    stream: StreamInput
    data: bytes
    is_last: bool
    result: Future[tuple[Samples, Probabilities]] = field(default_factory=Future)


class LiveVad:
    """Detects speech in all live streams. The messages that have arrived go through the detector together, at once."""

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._messages: queue.SimpleQueue[_Message | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="live-vad")
        self._thread.start()
        # One thread, so that a hundred clients with odd sample rates build one filter after another.
        self._opening = ThreadPoolExecutor(1, thread_name_prefix="live-open", initializer=lower_priority)

    def open_input(self, encoding: Encoding, rate: int) -> asyncio.Future[StreamInput]:
        """A new stream, made off the event loop, which a filter for an odd rate would stall."""
        return asyncio.get_running_loop().run_in_executor(self._opening, StreamInput, encoding, rate)

    async def detect(self, stream: StreamInput, data: bytes, *, is_last: bool = False) -> tuple[Samples, Probabilities]:
        """Samples of the next bytes, and the probability of speech in each window that they complete.

        One call at a time for each stream.
        """
        message = _Message(stream, data, is_last)
        self._messages.put(message)
        return await asyncio.wrap_future(message.result)

    def close(self) -> None:
        """End the threads, after the messages that have arrived."""
        self._messages.put(None)
        self._thread.join()
        self._opening.shutdown(cancel_futures=True)

    def _run(self) -> None:
        lower_priority()
        while (first := self._messages.get()) is not None:
            messages = [first]
            is_closing = False
            while len(messages) < MAX_MESSAGES and not self._messages.empty():
                following = self._messages.get()
                if following is None:
                    is_closing = True
                    break
                messages.append(following)
            self._detect(messages)
            if is_closing:
                return

    def _detect(self, messages: list[_Message]) -> None:
        messages = [message for message in messages if message.result.set_running_or_notify_cancel()]
        try:
            inputs = [message.stream.push(message.data, is_last=message.is_last) for message in messages]
            found: list[list[float]] = [[] for _ in messages]
            for place in range(max((len(windows) for _, windows in inputs), default=0)):
                busy = [index for index, (_, windows) in enumerate(inputs) if len(windows) > place]
                probabilities, states = self._detector.detect(
                    np.stack([inputs[index][1][place] for index in busy]),
                    np.stack([messages[index].stream.state for index in busy]),
                )
                for row, index in enumerate(busy):
                    found[index].append(float(probabilities[row]))
                    messages[index].stream.state = states[row]
        except Exception as exc:
            for message in messages:
                message.result.set_exception(exc)
            return
        for message, (samples, _), own in zip(messages, inputs, found, strict=True):
            message.result.set_result((samples, np.array(own, np.float32)))
