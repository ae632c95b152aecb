"""Knows how the frames of live sessions become sound and speech probabilities, many sessions together in one thread.

frames → samples → 16 kHz → windows → probabilities. Does not know what a session makes of them.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.media import resampling
from parakeet_stt.offline.utterances import Probabilities
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES
from parakeet_stt.protocols import MEMORY_SHAPE, WINDOW_CONTEXT, SpeechDetector

Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw", "alaw"]
MOST_TOGETHER = 256  # frames of different sessions whose windows are heard in one call
RATES = (8_000, 48_000)  # Hz, that a session may send


def _mulaw() -> npt.NDArray[np.float32]:
    """The 256 values of ITU-T G.711 μ-law, as samples in [-1, 1]."""
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


def _alaw() -> npt.NDArray[np.float32]:
    """The 256 values of ITU-T G.711 A-law, as samples in [-1, 1]."""
    code = np.arange(256) ^ 0x55
    exponent = code >> 4 & 7
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent == 0, mantissa, mantissa + 0x100 << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


_TABLES = {"mulaw": _mulaw(), "alaw": _alaw()}
_SAMPLE_BYTES: dict[Encoding, int] = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


class Ear:
    """What is remembered of one session's sound between its frames: whatever completes no sample or window yet."""

    def __init__(self, encoding: Encoding, rate: int) -> None:
        """rate: in Hz. Raises ValueError for one that can't be resampled."""
        self._encoding = encoding
        self._resampler = resampling.Resampler(rate)
        self._bytes = b""
        self._left = np.zeros(WINDOW_CONTEXT, np.float32)
        self.memory = np.zeros(MEMORY_SHAPE, np.float32)

    def samples(self, data: bytes, *, is_last: bool) -> Samples:
        """The next bytes as mono sound of 16 kHz."""
        data = self._bytes + data
        whole = len(data) - len(data) % _SAMPLE_BYTES[self._encoding]
        self._bytes = data[whole:]
        sound = self._resampler.push(self._decoded(data[:whole]))
        return np.concatenate([sound, self._resampler.rest()]) if is_last else sound

    def windows(self, samples: Samples, *, is_last: bool) -> npt.NDArray[np.float32]:
        """The windows that these samples complete, shape (count, context + window); the last one filled up."""
        heard = np.concatenate([self._left, samples])
        missing = -(len(heard) - WINDOW_CONTEXT) % WINDOW_SAMPLES
        if is_last:
            heard = np.concatenate([heard, np.zeros(missing, np.float32)])
        count = (len(heard) - WINDOW_CONTEXT) // WINDOW_SAMPLES
        self._left = heard[count * WINDOW_SAMPLES :].copy()
        width = WINDOW_CONTEXT + WINDOW_SAMPLES
        if not count:
            return np.zeros((0, width), np.float32)
        return np.lib.stride_tricks.sliding_window_view(heard, width)[: count * WINDOW_SAMPLES : WINDOW_SAMPLES]

    def _decoded(self, data: bytes) -> Samples:
        if self._encoding == "pcm_s16le":
            return np.frombuffer(data, "<i2").astype(np.float32) / np.float32(32768)
        if self._encoding == "pcm_f32le":
            return resampling.mixed_down(np.frombuffer(data, "<f4").astype(np.float32)[None])
        found: Samples = _TABLES[self._encoding][np.frombuffer(data, np.uint8)]
        return found


@dataclass(frozen=True, slots=True, eq=False)
class _Frame:
    ear: Ear
    data: bytes
    is_last: bool
    result: Future[tuple[Samples, Probabilities]] = field(default_factory=Future)


class Hearing:
    """One thread that hears for all sessions: whatever has come goes through the detector together, without waiting."""

    def __init__(self, detector: SpeechDetector, *, start: Callable[[], None] = lambda: None) -> None:
        """start: called in the thread before anything else."""
        self._detector = detector
        self._frames: queue.SimpleQueue[_Frame | None] = queue.SimpleQueue()
        self._start = start
        self._thread = threading.Thread(target=self._run, name="hearing")
        self._thread.start()

    async def hear(self, ear: Ear, data: bytes, *, is_last: bool = False) -> tuple[Samples, Probabilities]:
        """The sound of the next bytes, and the probability of speech in each window of 512 samples it completes.

        Of one ear, one at a time.
        """
        frame = _Frame(ear, data, is_last)
        self._frames.put(frame)
        return await asyncio.wrap_future(frame.result)

    def close(self) -> None:
        """End the thread, after what has come."""
        self._frames.put(None)
        self._thread.join()

    def _run(self) -> None:
        self._start()
        while (first := self._frames.get()) is not None:
            frames = [first]
            is_end = False
            while len(frames) < MOST_TOGETHER and not self._frames.empty():
                following = self._frames.get()
                if following is None:
                    is_end = True
                    break
                frames.append(following)
            self._hear(frames)
            if is_end:
                return

    def _hear(self, frames: list[_Frame]) -> None:
        frames = [frame for frame in frames if frame.result.set_running_or_notify_cancel()]
        try:
            sounds = [frame.ear.samples(frame.data, is_last=frame.is_last) for frame in frames]
            windows = [
                frame.ear.windows(sound, is_last=frame.is_last) for frame, sound in zip(frames, sounds, strict=True)
            ]
            found: list[list[float]] = [[] for _ in frames]
            for turn in range(max(map(len, windows), default=0)):
                busy = [index for index, own in enumerate(windows) if len(own) > turn]
                probabilities, memories = self._detector.probabilities(
                    np.stack([windows[index][turn] for index in busy]),
                    np.stack([frames[index].ear.memory for index in busy]),
                )
                for place, index in enumerate(busy):
                    found[index].append(float(probabilities[place]))
                    frames[index].ear.memory = memories[place]
        except Exception as exc:
            for frame in frames:
                frame.result.set_exception(exc)
            return
        for frame, sound, own in zip(frames, sounds, found, strict=True):
            frame.result.set_result((sound, np.array(own, np.float32)))


def is_rate(rate: int) -> bool:
    """Whether sessions may send sound of this rate, in Hz."""
    return RATES[0] <= rate <= RATES[1] and (rate == SAMPLE_RATE or resampling.is_convertible(rate))
