"""The Silero speech detector on a CPU, with ONNX Runtime and the weights that the package silero-vad carries.

Imports neither torch nor silero_vad, which imports torch: media workers and front processes have to start in little
time and memory.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import onnxruntime  # type: ignore[import-untyped] # the package's __init__.py has turned its telemetry off

from parakeet_stt.engines.silero_graph import FEATURES, make_graph
from parakeet_stt.errors import StartupError
from parakeet_stt.protocols import DetectorStates
from parakeet_stt.vad import Probabilities, Windows

MAX_WINDOWS = 512  # of one stream in one call, as silero-vad has it: 16 s


def silero_file(name: str) -> Path:
    """The path of a file that the package silero-vad carries. Does not import the package.

    Raises StartupError if the package is not installed.
    """
    spec = find_spec("silero_vad")
    if spec is None or not spec.submodule_search_locations:
        raise StartupError("the package silero-vad is not installed; install parakeet-stt[engine]")
    return Path(spec.submodule_search_locations[0], "data", name)


class OnnxDetector:
    """Silero in one graph; see `protocols.SpeechDetector`.

    A call takes many windows of one stream, or one window of each of many streams. It costs 0.13 ms and each window in
    it about 0.03 ms more, so `detect` chooses between them by the number of calls.

    Any number of threads may call `detect` at once. It may be created before `os.fork()` and used in the children: a
    session with one thread computes in the thread that calls it, and starts none.
    """

    def __init__(self) -> None:
        """Load the weights. Raises StartupError if the package silero-vad is not installed."""
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1
        options.inter_op_num_threads = 1
        self._session = onnxruntime.InferenceSession(
            make_graph(silero_file("silero_vad_16k_sequence.onnx")), options, providers=["CPUExecutionProvider"]
        )

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        """Probability of speech in each window of each of several streams; see `protocols.SpeechDetector`."""
        counts = [len(own) for own in windows]
        steps = choose_steps(counts)
        found: list[Probabilities] = [np.empty(count, np.float32) for count in counts]
        reached = np.array(states, np.float32)
        for index, count in enumerate(counts):
            for start in range(0, count if count > steps else 0, MAX_WINDOWS):
                part, own = slice(start, start + MAX_WINDOWS), slice(index, index + 1)
                found[index][part], reached[own] = self._run(windows[index][part], reached[own])
        for place in range(steps):
            busy = [index for index, count in enumerate(counts) if place < count <= steps]
            batch = np.stack([windows[index][place] for index in busy])
            probabilities, reached[busy] = self._run(batch, reached[busy])
            for index, probability in zip(busy, probabilities, strict=True):
                found[index][place] = probability
        return found, reached

    def _run(self, windows: Windows, states: DetectorStates) -> tuple[Probabilities, DetectorStates]:
        """As many windows of each stream as there are, the first of each stream first; and the states after them."""
        hidden, cell = np.ascontiguousarray(states.transpose(1, 0, 2))[:, None]
        shape = np.array([len(windows) // len(states), len(states), FEATURES])
        given = {"input": np.ascontiguousarray(windows), "shape": shape, "h": hidden, "c": cell}
        probabilities, hidden, cell = self._session.run(["speech_probs", "hn", "cn"], given)
        return probabilities, np.stack([hidden[0], cell[0]], 1)


def choose_steps(counts: Sequence[int]) -> int:
    """The number of windows up to which streams are computed window by window together, with the fewest calls.

    counts: windows of each stream. Streams with more are computed each on its own. One stream alone always is: 0.
    """

    def calls(steps: int) -> int:
        return steps + sum(-(-count // MAX_WINDOWS) for count in counts if count > steps)

    return min(sorted({0, *counts}), key=calls)
