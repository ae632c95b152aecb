"""The Silero speech detector on a CPU, with ONNX Runtime and the weights that the package silero-vad carries.

Imports neither torch nor silero_vad, which imports torch: media workers and front processes have to start in little
time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import numpy.typing as npt
import onnxruntime  # type: ignore[import-untyped] # the package's __init__.py has turned its telemetry off

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import StartupError
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, DetectorStates
from parakeet_stt.vad import Probabilities, Windows

MAX_WINDOWS = 512  # in one call of the sequence form, as silero-vad has it: 16 s
State = npt.NDArray[np.float32]  # of one stream, shape DETECTOR_STATE_SHAPE


def silero_file(name: str) -> Path:
    """The path of a file that the package silero-vad carries. Does not import the package.

    Raises StartupError if the package is not installed.
    """
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("the package silero-vad is not installed; install parakeet-stt[engine]")
    return Path(spec.submodule_search_locations[0], "data", name)


class OnnxDetector:
    """Silero in two forms with the same weights and state; see `protocols.SpeechDetector`.

    The sequence form takes many windows of one stream in a call. The single form takes one window of each of many
    streams. A call costs 0.12 to 0.18 ms and each window in it about 0.1 ms more, in either form, so `detect` chooses
    between them by the number of calls.

    Any number of threads may call `detect` at once. It may be created before `os.fork()` and used in the children: a
    session with one thread computes in the thread that calls it, and starts none.
    """

    def __init__(self) -> None:
        """Load both forms. Raises StartupError if the package silero-vad is not installed."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._sequence, self._single = (
            onnxruntime.InferenceSession(str(silero_file(name)), options, providers=["CPUExecutionProvider"])
            for name in ("silero_vad_16k_sequence.onnx", "silero_vad_16k_op15.onnx")
        )
        self._rate = np.array(SAMPLE_RATE, np.int64)

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        """Probability of speech in each window of each of several streams; see `protocols.SpeechDetector`."""
        counts = [len(own) for own in windows]
        steps = choose_steps(counts)
        found: list[Probabilities] = [np.empty(count, np.float32) for count in counts]
        reached = np.array(states, np.float32)
        for index, count in enumerate(counts):
            for start in range(0, count if count > steps else 0, MAX_WINDOWS):
                part = slice(start, start + MAX_WINDOWS)
                found[index][part], reached[index] = self._run_sequence(windows[index][part], reached[index])
        for place in range(steps):
            busy = [index for index, count in enumerate(counts) if place < count <= steps]
            batch = np.stack([windows[index][place] for index in busy])
            probabilities, reached[busy] = self._run_single(batch, reached[busy])
            for index, probability in zip(busy, probabilities, strict=True):
                found[index][place] = probability
        return found, reached

    def _run_sequence(self, windows: Windows, state: State) -> tuple[Probabilities, State]:
        """Windows of one stream, one after another."""
        hidden, cell = state.reshape(2, 1, 1, -1)
        given = {"input": np.ascontiguousarray(windows), "h": hidden, "c": cell}
        probabilities, hidden, cell = self._sequence.run(["speech_probs", "hn", "cn"], given)
        return probabilities, np.concatenate([hidden, cell]).reshape(DETECTOR_STATE_SHAPE)

    def _run_single(self, windows: Windows, states: DetectorStates) -> tuple[Probabilities, DetectorStates]:
        """One window of each of several streams."""
        given = {"input": windows, "state": np.ascontiguousarray(states.transpose(1, 0, 2)), "sr": self._rate}
        probabilities, reached = self._single.run(["output", "stateN"], given)
        return probabilities.reshape(-1), reached.transpose(1, 0, 2)


def choose_steps(counts: Sequence[int]) -> int:
    """The number of windows up to which a stream goes through the single form, such that the fewest calls are made.

    counts: windows of each stream. Streams with more go through the sequence form, each on its own. One stream alone
    always does: 0.
    """

    def calls(steps: int) -> int:
        return steps + sum(-(-count // MAX_WINDOWS) for count in counts if count > steps)

    return min(sorted({0, *counts}), key=calls)
