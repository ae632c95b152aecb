"""Knows where temporary files lie, and that none outlives the process it belongs to. Does not know what is in them."""

from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from contextlib import suppress
from pathlib import Path

PREFIX = "parakeet-stt-"
LOCK = "lock"


def claim() -> Path:
    """A folder for everything temporary of this process, set as Python's own; those of dead processes are removed.

    Each folder holds a file that its process has locked; the kernel unlocks it however the process ends.
    """
    parent = Path(tempfile.gettempdir())
    for old in parent.glob(f"{PREFIX}*"):
        with suppress(OSError):  # somebody else's, or in use
            lock = os.open(old / LOCK, os.O_RDWR)
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(old, ignore_errors=True)
            finally:
                os.close(lock)
    folder = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
    held = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)  # for as long as this process lives
    fcntl.flock(held, fcntl.LOCK_EX)
    tempfile.tempdir = str(folder)
    return folder


def release(folder: Path) -> None:
    """Remove this process's folder, when nothing is going to use it any more."""
    shutil.rmtree(folder, ignore_errors=True)
