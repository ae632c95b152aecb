"""The Silero speech detector, with the weights that the package silero-vad carries."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

threads = torch.get_num_threads()
from silero_vad import load_silero_vad  # noqa: E402

torch.set_num_threads(threads)  # importing silero_vad sets one thread, for the whole process

from parakeet_stt.audio import SAMPLE_RATE, Samples  # noqa: E402
from parakeet_stt.vad import Probabilities, WindowFramer, Windows  # noqa: E402

MAX_WINDOWS = 512  # in one call, as silero-vad has it: 16 s
STATE_SHAPE = (1, 1, 128)  # of each of the two states of its LSTM


class SileroDetector:
    """Silero in two forms; see `protocols.SpeechDetector`.

    The sequence form takes many windows of one stream in a call, eight times as fast as window by window. The other
    form takes one window of each of many streams.
    """

    def __init__(self) -> None:
        self._sequence: Any = load_silero_vad(onnx=True, sequence=True).session
        self._single: Any = load_silero_vad(onnx=True, opset_version=15).session

    def stream(self) -> SileroStream:
        """A new stream; see `protocols.SpeechDetector`. The session keeps no state between calls."""
        return SileroStream(self._sequence)

    def detect(
        self, windows: Windows, states: npt.NDArray[np.float32]
    ) -> tuple[Probabilities, npt.NDArray[np.float32]]:
        """One window of each of several streams; see `protocols.SpeechDetector`."""
        given = {"input": windows, "state": states.transpose(1, 0, 2), "sr": np.array(SAMPLE_RATE)}
        probabilities, next_states = self._single.run(None, given)
        return probabilities.reshape(-1), next_states.transpose(1, 0, 2)


class SileroStream:
    """One stream; see `protocols.SpeechStream`. Keeps 1 kB of state, and less than a window of samples."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._hidden, self._cell = np.zeros(STATE_SHAPE, np.float32), np.zeros(STATE_SHAPE, np.float32)
        self._framer = WindowFramer()

    def push(self, samples: Samples) -> Probabilities:
        """Probability of speech in each window that these samples complete."""
        return self._run(self._framer.push(samples))

    def flush(self) -> Probabilities:
        """Probability for the last window, filled up with zeros."""
        return self._run(self._framer.flush())

    def _run(self, windows: Windows) -> Probabilities:
        parts = [self._run_part(windows[i : i + MAX_WINDOWS]) for i in range(0, len(windows), MAX_WINDOWS)]
        return np.concatenate([np.zeros(0, np.float32), *parts])

    def _run_part(self, windows: Windows) -> Probabilities:
        given = {"input": np.ascontiguousarray(windows), "h": self._hidden, "c": self._cell}
        found, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], given)
        probabilities: Probabilities = found.reshape(-1)
        return probabilities
