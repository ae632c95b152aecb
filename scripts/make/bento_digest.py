"""Prints the digest of a built Bento's content: of every file, without two lines of bento.yaml.

    python -m scripts.make.bento_digest [TAG]      # parakeet_stt:latest by default

Two builds of the same files have the same digest, wherever and whenever they are made. The two lines that are left out,
the version and the creation time, are printed. Names and contents of files count; owners, modes and times do not.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import re
import sys
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before the library reads it

from parakeet_stt.server import digests

DESCRIPTION = "bento.yaml"
LEFT_OUT = re.compile(rb"^(version|creation_time): (.*)\n", re.MULTILINE)  # which BentoML makes new for each build


@dataclass(frozen=True, slots=True)
class BentoDigest:
    """The digest of a Bento. files: how many. left_out: lines of bento.yaml that do not count."""

    content: str
    files: int
    left_out: dict[str, str]

    def __str__(self) -> str:
        left_out = "\n".join(f"not counted  {name}: {value}" for name, value in self.left_out.items())
        return f"digest       sha256:{self.content}\nfiles        {self.files}\n{left_out}"


def compute_digest(bento: Path) -> BentoDigest:
    """The digest of the Bento in this folder."""
    files = {path.relative_to(bento).as_posix(): path for path in bento.rglob("*") if path.is_file()}
    description = files.pop(DESCRIPTION).read_bytes()
    contents = {name: digests.of_file(path) for name, path in files.items()}
    contents[DESCRIPTION] = hashlib.sha256(LEFT_OUT.sub(b"", description)).hexdigest()
    left_out = {name.decode(): value.decode() for name, value in LEFT_OUT.findall(description)}
    return BentoDigest(digests.of_files(contents), len(contents), left_out)


def main() -> None:
    """Print the digest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tag", nargs="?", default="parakeet_stt:latest")
    given = parser.parse_args()
    import bentoml
    from bentoml.exceptions import BentoMLException

    try:
        print(compute_digest(Path(bentoml.bentos.get(given.tag).path)))
    except BentoMLException as exc:
        sys.exit(f"{given.tag} is not in the BentoML store: {exc}")


if __name__ == "__main__":
    main()
