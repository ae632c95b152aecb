"""The service over a device of endless speed, which gives three tokens a second at once: for this folder.

bentoml serve scripts.bench.host.endless:ParakeetSTT

As a program it is the device process. With ENDLESS_DETECTOR=device in the environment it also detects speech, by
energy; otherwise media workers and fronts do, as on a CPU.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from parakeet_stt.processes import device
from parakeet_stt.protocols import DetectorStates, Engine
from parakeet_stt.server.settings import Settings
from parakeet_stt.vad import Probabilities, Windows, split_streams
from scripts.bench.host.recognizer import EndlessRecognizer

DETECTOR = "ENDLESS_DETECTOR"
LOUD = 1e-4  # mean square of a window of speech in the sample
STRIDE = 8  # samples of which one is looked at: what the stand-in takes is no cost of the host


class EnergyDetector:
    """Loud windows are speech; see `protocols.SpeechDetector`."""

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        """1 for loud windows, 0 for others."""
        together = np.concatenate([own[:, ::STRIDE] for own in windows])
        energies = np.einsum("ij,ij->i", together, together) / together.shape[1]
        return split_streams((energies > LOUD).astype(np.float32), [len(own) for own in windows]), states


def load_endless(path: Path, settings: Settings, number: int, diarizer: Path | None) -> Engine:
    """The endless engine, whatever the settings."""
    return Engine(EndlessRecognizer(), EnergyDetector() if os.environ.get(DETECTOR) == "device" else None)


if __name__ == "__main__":
    device.main(load_endless)
else:
    import service

    service.DEVICE_MODULE = __name__
    if os.environ.get(DETECTOR) == "device":
        service._has_gpu = lambda settings: True
    ParakeetSTT = service.ParakeetSTT
