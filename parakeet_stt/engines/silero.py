"""Knows the Silero speech detector with the weights that silero-vad carries. Does not know what its answers mean."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch

threads = torch.get_num_threads()
from silero_vad import load_silero_vad  # noqa: E402
from silero_vad.sequence_vad import RATE_CONFIG  # noqa: E402

torch.set_num_threads(threads)  # its import sets one thread, for the whole process

from parakeet_stt.audio import SAMPLE_RATE, Samples  # noqa: E402

WINDOW, CONTEXT = RATE_CONFIG[SAMPLE_RATE]  # samples; each window is heard with the last ones of that before it
MOST_WINDOWS = 512  # in one call, as silero-vad has it: 16 s
STATE = (1, 1, 128)  # of its LSTM, each of the two


class SileroDetector:
    """Silero for recordings, in its sequence form, and for many live streams at once.

    The sequence form takes many windows of one stream in a call, eight times as fast as window by window; the other one
    takes a window of each of many.
    """

    def __init__(self) -> None:
        self._session: Any = load_silero_vad(onnx=True, sequence=True).session
        self._windows: Any = load_silero_vad(onnx=True, opset_version=15).session

    def stream(self) -> SileroStream:
        """See `parakeet_stt.protocols.SpeechDetector`. The session keeps no state between calls."""
        return SileroStream(self._session)

    def probabilities(
        self, windows: npt.NDArray[np.float32], memories: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """Of one window of each stream, and what is to be remembered. See `parakeet_stt.protocols.SpeechDetector`."""
        given = {"input": windows, "state": memories.transpose(1, 0, 2), "sr": np.array(SAMPLE_RATE)}
        found, states = self._windows.run(None, given)
        return found.reshape(-1), states.transpose(1, 0, 2)


class SileroStream:
    """See `parakeet_stt.protocols.SpeechStream`. Its state is 1 kB, and less than a window of samples."""

    def __init__(self, session: Any) -> None:
        self._session = session
        self._hidden, self._cell = np.zeros(STATE, np.float32), np.zeros(STATE, np.float32)
        self._left = np.zeros(CONTEXT, np.float32)  # the context, and what completes no window yet

    def probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        """Of each window that is complete now."""
        heard = np.concatenate([self._left, samples])
        count = (len(heard) - CONTEXT) // WINDOW
        self._left = heard[count * WINDOW :].copy()
        if not count:
            return np.zeros(0, np.float32)
        windows = np.lib.stride_tricks.sliding_window_view(heard, CONTEXT + WINDOW)[: count * WINDOW : WINDOW]
        return np.concatenate([self._run(windows[i : i + MOST_WINDOWS]) for i in range(0, count, MOST_WINDOWS)])

    def rest(self) -> npt.NDArray[np.float32]:
        """Of what is left, filled up with zeros."""
        left = len(self._left) - CONTEXT
        return self.probabilities(np.zeros(WINDOW - left, np.float32)) if left else np.zeros(0, np.float32)

    def _run(self, windows: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
        given = {"input": np.ascontiguousarray(windows), "h": self._hidden, "c": self._cell}
        found, self._hidden, self._cell = self._session.run(["speech_probs", "hn", "cn"], given)
        probabilities: npt.NDArray[np.float32] = found.reshape(-1)
        return probabilities
