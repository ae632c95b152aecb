"""Knows what a service is made of, as SHA-256 digests: its source, its lock, its model. Does not know who asks."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCK = "requirements.lock"
SOURCE = ("service.py", "parakeet_stt/**/*.py")  # as in bentofile.yaml


@dataclass(frozen=True, slots=True)
class Digests:
    """In hexadecimal digits."""

    source: str
    lock: str
    model: str


def digests(folder: Path, model: Path, *, recorded: str | None = None) -> Digests:
    """Of the source and the lock in `folder`, a checkout's or a Bento's, and of a model.

    recorded: the model's digest where it is known already; its file is not read then, which takes 0.6 s a gigabyte.
    """
    source = {path.relative_to(folder).as_posix(): of_file(path) for one in SOURCE for path in folder.glob(one)}
    return Digests(of_files(source), of_file(folder / LOCK), recorded or of_file(model))


def of_file(path: Path) -> str:
    """The digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_files(files: Mapping[str, str]) -> str:
    """One digest of several files, from that of each by its name: what `sha256sum | sha256sum` says of them, sorted."""
    listing = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()
