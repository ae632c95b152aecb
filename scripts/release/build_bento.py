"""Knows how the Bento is built: from a lock that is not stale, with what it is made of in its labels.

    .venv/bin/python -m scripts.release.build_bento
    .venv/bin/python -m scripts.release.build_bento --model nvidia/parakeet-tdt-0.6b-v2

What goes in is bentofile.yaml's. With --model, `bentoml containerize` copies that model of the BentoML store into the
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
from parakeet_stt.server import digests
from scripts.release.bento_digest import digest
from scripts.release.lock_stamp import StaleLock, check

ROOT = Path(__file__).resolve().parents[2]


def build(model: str | None) -> Any:
    """Build the Bento into the store. model: as STT_MODEL names it, of the store; None for the bundled one alone.

    Raises StaleLock, and StartupError if the model is not there.
    """
    import bentoml
    from omegaconf import OmegaConf

    check(ROOT)
    source = catalogue.resolve(model)
    made_of = dataclasses.asdict(digests.digests(ROOT, source.path, recorded=source.sha256))
    options = OmegaConf.load(ROOT / "bentofile.yaml")
    if model:
        if source.tag is None:
            raise StartupError(f"{model} is not in the BentoML store, and no other model can be baked in")
        options = OmegaConf.merge(options, {"models": [source.tag], "envs": [{"name": "STT_MODEL", "value": model}]})
    with tempfile.TemporaryDirectory() as folder:
        bentofile = Path(folder, "bentofile.yaml")
        OmegaConf.save(options, bentofile)
        return bentoml.bentos.build_bentofile(str(bentofile), labels=made_of, build_ctx=str(ROOT))


def main() -> None:
    """Build, and print the digest of what was built."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="NAME", help="a name of the catalogue or a tag of the BentoML store")
    try:
        bento = build(parser.parse_args().model)
    except (StaleLock, StartupError) as exc:
        sys.exit(f"no Bento was built: {exc}")
    print(f"built        {bento.tag}")
    print(digest(Path(bento.path)))
    for name, value in bento.info.labels.items():
        print(f"{name:12} sha256:{value}")


if __name__ == "__main__":
    main()
