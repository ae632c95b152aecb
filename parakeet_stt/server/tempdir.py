"""A temporary folder for each process; the folders of dead processes are removed."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "parakeet-stt-"
LOCK = "lock"


def create(parent: Path | None = None) -> Path:
    """Make a folder for this process's temporary files and set it as Python's own; remove those of dead processes.

    parent: where the folders are; Python's own temporary folder unless given. Each folder has a file that its process
    locks; the kernel unlocks it, however the process ends.
    """
    parent = parent or Path(tempfile.gettempdir())
    for old in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # another user's, or in use
            lock = os.open(old / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    locked = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # for as long as this process lives
    fcntl.flock(locked, fcntl.LOCK_EX)
    tempfile.tempdir = str(folder)
    return folder


def remove(folder: Path) -> None:
    """Remove this process's folder, when nothing uses it any more."""
    shutil.rmtree(folder, ignore_errors=True)
