"""Engines: the only code that imports torch, NeMo and Silero.

None of those libraries may call home or cache more than it needs. What they read for that at import is set here.
"""

import os
from pathlib import Path

# Hugging Face's libraries read these: nothing here may connect to a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# From 1.29 on, ONNX Runtime's Linux wheels report each session and its model's name to Microsoft unless this is set.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# oneDNN caches what it has compiled for each shape of a batch, by default 1024 shapes. After an hour of audio that is
# 400 MB, and of no use, since hardly any shape comes twice (docs/benchmarks.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")

# libgomp's threads otherwise spin for long where they wait for each other: beside other work on the same cores a batch
# took six times as long (docs/decisions/0004-cpu-engine.md).
os.environ.setdefault("GOMP_SPINCOUNT", "1000")


def set_cache_folder(folder: Path) -> None:
    """Have numba and torch cache what they compile in `folder`, not beside themselves. Call before their first import.

    They compile nothing here, but look for a cache folder: numba, a dependency of librosa, fails at import where it
    finds none, as under a read-only root.
    """
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
