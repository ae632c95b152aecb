"""The speech detector's input and thresholds: how a stream is cut into windows, and what its probabilities mean."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Samples

WINDOW_SAMPLES = 512  # the only window that Silero accepts at 16 kHz
WINDOW_SECONDS = WINDOW_SAMPLES / SAMPLE_RATE  # 32 ms
CONTEXT_SAMPLES = 64  # of the window before, with which Silero's networks take each window
OFFSET_BELOW_ONSET = 0.15  # Silero's own distance between the two thresholds
LOWEST_OFFSET = 0.01

Probabilities = npt.NDArray[np.float32]  # of speech, one for each window
Windows = npt.NDArray[np.float32]  # shape (count, CONTEXT_SAMPLES + WINDOW_SAMPLES)


def offset_for(onset: float) -> float:
    """Threshold to leave speech that goes with a threshold to enter it, as Silero derives it."""
    return max(onset - OFFSET_BELOW_ONSET, LOWEST_OFFSET)


def frame_windows(samples: Samples) -> Windows:
    """All whole windows of a stream; a view. samples: `CONTEXT_SAMPLES` of context, then the stream."""
    count = max(0, (len(samples) - CONTEXT_SAMPLES) // WINDOW_SAMPLES)
    width = CONTEXT_SAMPLES + WINDOW_SAMPLES
    if not count:
        return np.zeros((0, width), np.float32)
    if count == 1:
        return np.ascontiguousarray(samples[:width])[None]
    # `sliding_window_view` does the same and takes 40 µs, which is most of the time of a window of live speech.
    whole, strides = np.ascontiguousarray(samples), (WINDOW_SAMPLES * samples.itemsize, samples.itemsize)
    return np.ndarray((count, width), np.float32, whole.data, strides=strides)


def split_streams(joined: Probabilities, counts: Sequence[int]) -> list[Probabilities]:
    """The windows of each stream, of all streams' one after another; views. `np.split` takes five times as long."""
    return [joined[end - count : end] for count, end in zip(counts, accumulate(counts), strict=True)]


class WindowFramer:
    """Cuts one stream into windows. Keeps the context, and the samples that complete no window yet."""

    def __init__(self) -> None:
        self._rest = np.zeros(CONTEXT_SAMPLES, np.float32)

    def push(self, samples: Samples) -> Windows:
        """Windows that these samples complete. samples: the next ones of the stream, of any length."""
        stream = np.concatenate([self._rest, samples])
        windows = frame_windows(stream)
        self._rest = stream[len(windows) * WINDOW_SAMPLES :].copy()
        return windows

    def flush(self) -> Windows:
        """The last window at the end of the stream, filled up with zeros; none if no sample is left."""
        left = len(self._rest) - CONTEXT_SAMPLES
        return self.push(np.zeros(WINDOW_SAMPLES - left if left else 0, np.float32))
