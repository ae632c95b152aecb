"""The tiny model, on a device that is lost once: at the first recording after a file appears.

LOSE_DEVICE in the environment names the file, which is removed then.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from parakeet_stt.audio import Audio
from parakeet_stt.errors import DeviceLost
from parakeet_stt.protocols import Engine
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis


def load(path: Path, settings: Settings, number: int, diarizer: Path | None) -> Engine:
    """The tiny model on a CPU, on a device that may be lost."""
    from parakeet_stt.engines.parakeet import Parakeet
    from parakeet_stt.engines.steps.transfer import Deferred

    class Lossy(Parakeet):
        def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Deferred[list[Hypothesis]]:
            signal = Path(os.environ["LOSE_DEVICE"])
            if signal.exists():
                signal.unlink()
                raise DeviceLost("gone")
            return super().launch(batch, phrases)

    return Engine(Lossy(path, device="cpu"), None)
