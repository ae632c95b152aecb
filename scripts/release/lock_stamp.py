"""Knows whether a lock was made from the lists that pyproject.toml has now. Does not resolve, and needs no network.

    .venv/bin/python -m scripts.release.lock_stamp           # status 1 and one line if a lock is stale
    .venv/bin/python -m scripts.release.lock_stamp --write   # what `make lock` does at its end

A lock's first line holds the digest of the lists that it was made from.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import re
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
LOCKS: dict[str, tuple[str, ...]] = {"requirements.lock": (), "requirements-dev.lock": ("dev",)}  # and their groups
STAMP = re.compile(r"# Made by `make lock` from lists with sha256:([0-9a-f]{64})\n")


class StaleLock(Exception):
    """A lock is not that of the lists; the message is one line."""


def lists_digest(project: dict[str, Any], groups: Sequence[str]) -> str:
    """Of what a lock is made from: the versions of Python, the dependencies and those of some groups, in any order."""
    described = project["project"]
    lists = {
        "python": described["requires-python"],
        "dependencies": sorted(described["dependencies"]),
        "groups": {name: sorted(project["dependency-groups"][name]) for name in groups},
    }
    return hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()


def stamped(lock: str, digest: str) -> str:
    """The lock's text, with that digest for any that it had."""
    return f"# Made by `make lock` from lists with sha256:{digest}\n" + STAMP.sub("", lock)


def check(folder: Path) -> None:
    """Raises StaleLock if a lock in that folder was made from other lists than its pyproject.toml has."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    for name, groups in LOCKS.items():
        found = STAMP.match((folder / name).read_text("utf-8"))
        if found is None or found[1] != lists_digest(project, groups):
            raise StaleLock(f"{name} is stale: pyproject.toml lists other packages than it was made from. `make lock`")


def write(folder: Path) -> None:
    """Stamp the locks that have just been made."""
    project = tomllib.loads((folder / "pyproject.toml").read_text("utf-8"))
    for name, groups in LOCKS.items():
        lock = folder / name
        lock.write_text(stamped(lock.read_text("utf-8"), lists_digest(project, groups)), "utf-8")


def main() -> None:
    """Check or write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--write", action="store_true")
    try:
        (write if parser.parse_args().write else check)(ROOT)
    except StaleLock as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
