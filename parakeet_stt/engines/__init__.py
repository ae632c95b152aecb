"""The only code that imports torch, torchaudio, NeMo and Silero. Does not know HTTP or files that callers send.

None of those libraries calls home, and none keeps more than it needs: what they read for that when they are imported is
set here.
"""

import os
from pathlib import Path

# Read by Hugging Face's libraries: nothing here may reach for a hub.
os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TRANSFORMERS_OFFLINE"] = "1"
# From 1.29 on, ONNX Runtime's Linux wheels report each session and its model's name to Microsoft unless told not to.
os.environ["ORT_DISABLE_TELEMETRY"] = "1"

# oneDNN keeps what it has prepared for each shape of a batch: 1024 of them unless told otherwise, which is 400 MB after
# an hour of audio, and of no use, since hardly a shape comes twice (docs/benchmarks.md).
os.environ.setdefault("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "64")


def keep_caches_in(folder: Path) -> None:
    """Before their first import: let numba and torch keep what they compile in `folder`, and not beside themselves.

    Here they compile nothing, but look for such a place: numba, which librosa brings, refuses to be imported by NeMo
    where it finds none, as under a read-only root.
    """
    os.environ.setdefault("NUMBA_CACHE_DIR", str(folder / "numba"))
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(folder / "inductor"))
