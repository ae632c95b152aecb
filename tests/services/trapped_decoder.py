"""The media program, for which some files are traps: they do what real files are feared to do to a decoder."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterator
from typing import BinaryIO

import numpy as np

from parakeet_stt.audio import Samples
from parakeet_stt.media import demux, worker
from parakeet_stt.processes import media

worker.COMPUTE_SECONDS = worker.STALL_SECONDS = 2.0
TRAPS = ("crash", "crash later", "sleep", "spin", "bomb", "leave without a word")
open_track = demux.open_track


def trap(name: str) -> bytes:
    """A file of that kind."""
    return f"TRAP {name}\n".encode() + bytes(1000)


def _sprung(name: str) -> None:
    if name.startswith("crash"):
        os.kill(os.getpid(), signal.SIGSEGV)
    elif name == "sleep":
        time.sleep(1000)
    elif name == "spin":
        while True:
            pass
    elif name == "bomb":
        hoard = [b""]
        while True:
            hoard.append(b"x" * (32 << 20))
    else:
        os._exit(0)


def trapped(source: BinaryIO, *, max_seconds: float, channel: int | None = None) -> demux.Track:
    """As `demux.open_track`, for files that are no traps."""
    start = source.read(100)
    if not start.startswith(b"TRAP "):
        return open_track(source, max_seconds=max_seconds, channel=channel)
    name = start.splitlines()[0].decode().removeprefix("TRAP ")
    if not name.endswith("later"):
        _sprung(name)
    track = demux.Track(16_000)

    def pieces() -> Iterator[Samples]:
        yield np.zeros(16_000, np.float32)
        _sprung(name)

    track.pieces = pieces()
    return track


demux.open_track = trapped

if __name__ == "__main__":
    media.main()
