"""Stamps the locks, and tells whether they were made from the lists that pyproject.toml has now, without network.

    .venv/bin/python -m scripts.make.lock_stamp                   # status 1 and one line if a lock is stale
    .venv/bin/python -m scripts.make.lock_stamp --write BULK ALL  # the last step of `make lock`

A lock's first line holds the digest of the lists that it was made from. requirements-bulk.lock holds only what bulk
transcription adds to requirements.lock, requirements-dev.lock only what development adds to both. BULK is the
resolution of all extras, ALL that of development as well, each made with those before as its constraints.
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
LOCKS: dict[str, tuple[str, ...]] = {  # and their groups
    "requirements.lock": (),
    "requirements-bulk.lock": (),
    "requirements-dev.lock": ("dev",),
}
STAMP = re.compile(r"# Made by `make lock` from lists with sha256:([0-9a-f]{64})\n")
ENTRY = re.compile(r"^[A-Za-z0-9].*\n(?:[ \t].*\n)*", re.MULTILINE)  # a pin, its hashes, and comments that say for whom


class StaleLock(Exception):
    """A lock does not fit the lists or the other lock; the message is one line."""


def lists_digest(project: dict[str, Any], groups: Sequence[str]) -> str:
    """Digest of what a lock is made from, in any order.

    That is the versions of Python, the dependencies, those of all extras, and those of some groups.
    """
    described = project["project"]
    lists = {
        "python": described["requires-python"],
        "dependencies": sorted(described["dependencies"]),
        "extras": {name: sorted(extra) for name, extra in described["optional-dependencies"].items()},
        "groups": {name: sorted(project["dependency-groups"][name]) for name in groups},
    }
    return hashlib.sha256(json.dumps(lists, sort_keys=True).encode()).hexdigest()


def pins(lock: str) -> dict[str, str]:
    """The entries of a lock by their pins: name, version, marker and hashes, without comments."""
    return {re.sub(r"^\s*#.*\n", "", entry, flags=re.MULTILINE): entry for entry in ENTRY.findall(lock)}


def additions(whole: str, base: str) -> str:
    """The entries that `whole` has and `base` has not.

    Raises StaleLock if a package of `base` is not pinned in `whole` exactly as it is there: what is tested would not be
    what is served.
    """
    served, all_pins = pins(base), pins(whole)
    added = {pin: entry for pin, entry in all_pins.items() if pin not in served}
    different = {_name(pin) for pin in served.keys() - all_pins.keys()} | (
        {_name(pin) for pin in added} & {_name(pin) for pin in served}
    )
    if different:
        raise StaleLock(f"another lock pins other versions, markers or hashes of {', '.join(sorted(different))}")
    return "".join(added.values())


def _name(pin: str) -> str:
    return pin.partition("==")[0]


def stamped(lock: str, digest: str) -> str:
    """The lock's text with this digest in place of any that it has."""
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
    parser.add_argument("--write", type=Path, nargs=2, metavar=("BULK", "ALL"))
    resolved: list[Path] | None = parser.parse_args().write
    try:
        if resolved is None:
            check(ROOT)
        else:
            base = (ROOT / "requirements.lock").read_text("utf-8")
            for name, file in zip(("requirements-bulk.lock", "requirements-dev.lock"), resolved, strict=True):
                added = additions(file.read_text("utf-8"), base)
                (ROOT / name).write_text(added, "utf-8")
                base += added
            write(ROOT)
    except StaleLock as exc:
        sys.exit(str(exc))


if __name__ == "__main__":
    main()
