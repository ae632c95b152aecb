"""Chooses and loads the engine of a model: the only place that knows which engines there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from parakeet_stt.engines import devices
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.silero_torch import TorchDetector
from parakeet_stt.engines.steps.encoder import EncoderMode
from parakeet_stt.protocols import Diarizer, Engine

RECOGNIZERS = {".nemo": Parakeet}  # by the suffix of the file; one line for each engine


@dataclass(frozen=True, slots=True)
class EngineSettings:
    """What the operator sets. device, precision: see `devices.py`. threads: of the recognizer on a CPU; 0 to choose.

    encoder: see `steps/encoder.py`.
    diarizer: file of the network that tells speakers apart; None for none.
    worker, workers: number of this process, from 1, and of all processes that share the machine's GPUs.
    """

    device: str = "auto"
    precision: devices.Precision = "auto"
    threads: int = 0
    encoder: EncoderMode = "graphs"
    diarizer: Path | None = None
    worker: int = 1
    workers: int = 1


def load(path: Path, settings: EngineSettings) -> Engine:
    """Load the recognizer of the file at `path`, on a GPU the speech detector, and the diarizer if there is to be one.

    The calling thread owns all. Raises StartupError if it can't be loaded, or its device is not there.
    """
    device = devices.for_worker(settings.device, settings.worker, settings.workers)
    load_recognizer = RECOGNIZERS.get(path.suffix, Parakeet)
    recognizer = load_recognizer(
        path, device=device, precision=settings.precision, threads=settings.threads, encoder=settings.encoder
    )
    detector = TorchDetector(recognizer.device) if recognizer.device != "cpu" else None
    return Engine(recognizer, detector, _load_diarizer(settings.diarizer, recognizer.device))


def _load_diarizer(path: Path | None, device: str) -> Diarizer | None:
    if path is None:
        return None
    from parakeet_stt.engines.diarizers.sortformer import Sortformer

    return Sortformer(path, device=device)
