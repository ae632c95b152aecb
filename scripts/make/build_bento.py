"""Builds the Bento, with the digests of its source, lock and model as labels. Refuses a stale lock.

    python -m scripts.make.build_bento             # or: make bento
    python -m scripts.make.build_bento --model nvidia/parakeet-tdt-0.6b-v2 \\
        --diarizer nvidia/diar_streaming_sortformer_4spk-v2

bentofile.yaml lists its files. With --model, `bentoml containerize` copies that model of the BentoML store into the
image, which serves it unless STT_MODEL says otherwise; so with --diarizer and STT_DIARIZER.
"""

from __future__ import annotations

import argparse
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


def build(model: str | None, diarizer: str | None = None) -> Any:
    """Build the Bento into the store. model, diarizer: of the store, as STT_MODEL and STT_DIARIZER name them.

    None: the bundled model, and no diarizer unless the operator sets one. Raises StaleLock, and StartupError if one is
    not in the store; the bundled diarizer is in every Bento.
    """
    import bentoml
    from omegaconf import OmegaConf

    check(ROOT)
    source, speakers = catalogue.resolve(model), catalogue.resolve_diarizer(diarizer)
    told = compute_digests(ROOT, source.path, recorded=source.sha256, diarizer=speakers.path if speakers else None)
    labels = told.named()
    options = OmegaConf.load(ROOT / "bentofile.yaml")
    chosen = [("STT_MODEL", model, source), ("STT_DIARIZER", diarizer, speakers)]
    settings = [(name, value, found) for name, value, found in chosen if value and found]
    for _, value, found in settings:
        if found.tag is None and (found.origin != "bundled" or value == model):
            raise StartupError(f"{value} is not in the BentoML store, and no other model can go into the image")
    if settings:
        tags = [found.tag for _, _, found in settings if found.tag]
        envs = [{"name": name, "value": value} for name, value, _ in settings]
        options = OmegaConf.merge(options, {"models": tags, "envs": envs})
    with tempfile.TemporaryDirectory() as folder:
        bentofile = Path(folder, "bentofile.yaml")
        OmegaConf.save(options, bentofile)
        return bentoml.bentos.build_bentofile(str(bentofile), labels=labels, build_ctx=str(ROOT))


def main() -> None:
    """Build, and print the digest and the labels."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", metavar="NAME", help="a name of the catalogue or a tag of the BentoML store")
    parser.add_argument("--diarizer", metavar="NAME", help="the same, of a diarizer")
    given = parser.parse_args()
    try:
        bento = build(given.model, given.diarizer)
    except (StaleLock, StartupError) as exc:
        sys.exit(f"no Bento was built: {exc}")
    print(f"built        {bento.tag}")
    print(compute_digest(Path(bento.path)))
    for name, value in bento.info.labels.items():
        print(f"{name:12} sha256:{value}")


if __name__ == "__main__":
    main()
