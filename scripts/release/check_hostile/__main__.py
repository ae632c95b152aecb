"""Does to a server of its own what hostile callers do, and checks that nobody else notices. Run before a release.

    python -m scripts.release.check_hostile                                   # half an hour to one and a half
    python -m scripts.release.check_hostile --files 200 --messages 500 --fast 2 --soak-minutes 1
    python -m scripts.release.check_hostile --minutes 12                      # as much of it as that allows

In five parts: mutated media files; sockets that say nonsense; six clients that send faster than real time; 70 long
files at once, beside which clips have to be answered within a minute; then a soak with known texts beside a little
of all of it, whose memory is printed each minute, so that a leak shows (--soak-minutes 120 for that). The server's
temporary folder is a small mount of its own, if this runs as root: what a caller can fill, is full soon. With
--minutes, the files have a third of the time at most, the messages a sixth, and the soak what is left after the long
files. Prints a line for each part, then one JSON line, whose memory is megabytes of all processes; status 1 if an
answer was a 5xx other than 503 and 507, if a text was wrong, if a clip or a call of the soak failed, or if a process
ended. The server's log is in build/hostile.log.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from scripts.bench.serving import ROOT
from scripts.release.check_hostile import crowd, files, soak, sockets
from scripts.release.check_hostile.tally import Tally
from tests.conftest import PLAIN, Serve

MOUNT_BYTES = 256 << 20
LOG = ROOT / "build" / "hostile.log"


@contextmanager
def small_folder() -> Iterator[Path]:
    """A folder in memory that holds little, where this process may mount one; else an ordinary one."""
    with tempfile.TemporaryDirectory(prefix="hostile-") as folder:
        command = ["mount", "-t", "tmpfs", "-o", f"size={MOUNT_BYTES}", "tmpfs", folder]
        is_mounted = os.geteuid() == 0 and not subprocess.run(command, capture_output=True, check=False).returncode
        try:
            yield Path(folder)
        finally:
            if is_mounted:
                subprocess.run(["umount", "--lazy", folder], check=False)


async def attack(url: str, arguments: argparse.Namespace, tally: Tally) -> None:
    """All parts, one after another."""
    began, whole = time.monotonic(), 60 * arguments.minutes
    await files.run(url, arguments.files, arguments.seed, tally, seconds=whole / 3)
    await sockets.fuzz(url, arguments.messages, arguments.seed, tally, seconds=whole / 6)
    await sockets.send_fast(url, arguments.fast, tally)
    await crowd.run(url, arguments.long_files, tally)
    rest = max(60.0, began + whole - time.monotonic())
    await soak.run(url, min(60 * arguments.soak_minutes, rest), arguments.seed, tally)


def main() -> None:
    """Parse the command line, and run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=5000, help="mutated media files")
    parser.add_argument("--messages", type=int, default=7000, help="messages to both sockets together")
    parser.add_argument("--fast", type=int, default=6, help="clients that send 300 s at once")
    parser.add_argument("--long-files", type=int, default=70, help="files of eight minutes at once")
    parser.add_argument("--soak-minutes", type=float, default=30)
    parser.add_argument("--minutes", type=float, default=float("inf"), help="for all of it; a little more is possible")
    parser.add_argument("--seed", type=int, default=1)
    arguments = parser.parse_args()
    tally = Tally()
    LOG.parent.mkdir(exist_ok=True)
    with small_folder() as folder:
        with Serve(LOG, target=PLAIN, TMPDIR=str(folder)) as server:
            tally.watch_processes(server.process)
            tally.check_processes("start")
            asyncio.run(attack(server.url, arguments, tally))
    for wrong in tally.wrong[:20]:
        print("WRONG", wrong)
    print(json.dumps({"counts": dict(sorted(tally.counts.items())), "wrong": len(tally.wrong), "memory": tally.memory}))
    sys.exit(1 if tally.wrong else 0)


if __name__ == "__main__":
    main()
