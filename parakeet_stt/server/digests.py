"""SHA-256 digests of what a service is made of: its source, its lock, its model, its diarizer."""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LOCK = "requirements.lock"
SOURCE = ("service.py", "parakeet_stt/**/*", "models/catalogue.toml")  # as in bentofile.yaml
COMPILED = ".pyc"  # what Python leaves beside its sources does not count


@dataclass(frozen=True, slots=True)
class Digests:
    """In hexadecimal digits. lock, diarizer: empty where there is none."""

    source: str
    lock: str = ""
    model: str = ""
    diarizer: str = ""

    def named(self) -> dict[str, str]:
        """Those that there are, by their names."""
        return {name: digest for name, digest in dataclasses.asdict(self).items() if digest}


def compute_digests(folder: Path, model: Path, *, recorded: str | None = None, diarizer: Path | None = None) -> Digests:
    """Digests of the source and the lock in `folder`, a checkout or a Bento, of a model, and of a diarizer.

    Where a wheel is installed, `folder` holds the package alone, and the lock's digest is empty: what is installed with
    a wheel need not be what the lock says.
    recorded: the model's digest, if it is known; then its file is not read, which would take 0.6 s a gigabyte.
    """
    lock = folder / LOCK
    source = {path.relative_to(folder).as_posix(): of_file(path) for path in source_files(folder)}
    return Digests(
        source=of_files(source),
        lock=of_file(lock) if lock.is_file() else "",
        model=recorded or of_file(model),
        diarizer=of_file(diarizer) if diarizer else "",
    )


def source_files(folder: Path) -> list[Path]:
    """All files of the source in `folder`."""
    found = (path for pattern in SOURCE for path in folder.glob(pattern))
    return [path for path in found if path.is_file() and path.suffix != COMPILED]


def of_file(path: Path) -> str:
    """Digest of a file's content."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def of_files(files: Mapping[str, str]) -> str:
    """One digest of several files, from each file's digest by its name, as `sha256sum … | sha256sum` computes it."""
    listing = "".join(f"{files[name]}  {name}\n" for name in sorted(files))
    return hashlib.sha256(listing.encode()).hexdigest()
