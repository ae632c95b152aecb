"""One stream of audio through a speech detector: samples in, probabilities out."""

from __future__ import annotations

import numpy as np

from parakeet_stt.audio import Samples
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, SpeechDetector
from parakeet_stt.vad import Probabilities, WindowFramer, Windows


class DetectorStream:
    """One stream, from its first sample to its last. Keeps 1 kB of state, and less than a window of samples.

    How the samples are divided among the calls makes no difference. Not thread-safe; several streams may share a
    detector that is.
    """

    def __init__(self, detector: SpeechDetector) -> None:
        self._detector = detector
        self._framer = WindowFramer()
        self._states = np.zeros((1, *DETECTOR_STATE_SHAPE), np.float32)

    def push(self, samples: Samples) -> Probabilities:
        """Probability of speech in each window that these samples complete, shape (windows,).

        samples: the next ones of the stream, of any length.
        """
        return self._detect(self._framer.push(samples))

    def flush(self) -> Probabilities:
        """Probability for the last window, filled up with zeros, shape (1,); shape (0,) if no sample is left."""
        return self._detect(self._framer.flush())

    def _detect(self, windows: Windows) -> Probabilities:
        if not len(windows):
            return np.zeros(0, np.float32)
        (probabilities,), self._states = self._detector.detect([windows], self._states)
        return probabilities
