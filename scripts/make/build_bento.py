"""Builds the Bento, with the digests of its source, lock and model as labels. Refuses a stale lock.

    python -m scripts.make.build_bento             # or: make bento
    python -m scripts.make.build_bento --model nvidia/parakeet-tdt-0.6b-v2

bentofile.yaml lists its files. With --model, `bentoml containerize` copies that model of the BentoML store into the
image, which serves it unless STT_MODEL says otherwise.
"""

from __future__ import annotations

import argparse
import dataclasses
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before the library reads it

from parakeet_stt.engines import catalogue
from parakeet_stt.errors import StartupError
from parakeet_stt.server.digests import compute_digests
from scripts.make.bento_digest import compute_digest
from scripts.make.lock_stamp import StaleLock, check

ROOT = Path(__file__).resolve().parents[2]


def build(model: str | None) -> Any:
    """Build the Bento into the store. model: one of the store, as STT_MODEL names it; None for the bundled one alone.

    Raises StaleLock, and StartupError if the model is not in the store.
    """
    import bentoml
    from omegaconf import OmegaConf

    check(ROOT)
    source = catalogue.resolve(model)
    labels = dataclasses.asdict(compute_digests(ROOT, source.path, recorded=source.sha256))
    options = OmegaConf.load(ROOT / "bentofile.yaml")
    if model:
        if source.tag is None:
            raise StartupError(f"{model} is not in the BentoML store, and no other model can go into the image")
        options = OmegaConf.merge(options, {"models": [source.tag], "envs": [{"name": "STT_MODEL", "value": model}]})
    with tempfile.TemporaryDirectory() as folder:
        bentofile = Path(folder, "bentofile.yaml")
        OmegaConf.save(options, bentofile)
        return bentoml.bentos.build_bentofile(str(bentofile), labels=labels, build_ctx=str(ROOT))


def main() -> None:
    """Build, and print the digest and the labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="NAME", help="a name of the catalogue or a tag of the BentoML store")
    try:
        bento = build(parser.parse_args().model)
    except (StaleLock, StartupError) as exc:
        sys.exit(f"no Bento was built: {exc}")
    print(f"built        {bento.tag}")
    print(compute_digest(Path(bento.path)))
    for name, value in bento.info.labels.items():
        print(f"{name:12} sha256:{value}")


if __name__ == "__main__":
    main()
