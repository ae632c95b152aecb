"""The folder of resampling filters: one file for each rate, made by a device process, read by workers and fronts."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.media.resampling import Filter

USUAL_RATES = (8_000, 22_050, 24_000, 32_000, 44_100, 48_000)  # Hz; their filters are made before the first file
MAX_FILTERS = 8  # that a process keeps; each is 1.5 MB or less
FILTER_FILES = "filter-*.npy"
MAX_FILES = 64  # in the folder: callers may name a thousand rates


def find_filter(folder: Path, rate: int) -> Filter | None:
    """The filter for a rate in Hz; None for 16 kHz. Raises FileNotFoundError if it is not made yet."""
    return None if rate == SAMPLE_RATE else _load(_path(folder, rate), rate)


def is_made(folder: Path, rate: int) -> bool:
    """Whether `find_filter` finds it."""
    return rate == SAMPLE_RATE or _path(folder, rate).exists()


def save_filter(folder: Path, rate: int, make: Callable[[int], npt.NDArray[np.float32]]) -> None:
    """Make the filter for a rate and put it into the folder, unless it is there. Any process and thread may call."""
    path = _path(folder, rate)
    if not path.exists():
        written = path.with_suffix(f".{threading.get_native_id()}")  # no other thread of any process has it
        with written.open("wb") as file:
            np.save(file, make(rate))
        written.rename(path)
        newest_last = sorted(folder.glob(FILTER_FILES), key=lambda one: one.stat().st_mtime)
        for old in newest_last[:-MAX_FILES]:
            old.unlink()


def _path(folder: Path, rate: int) -> Path:
    return folder / FILTER_FILES.replace("*", str(rate))


@lru_cache(maxsize=MAX_FILTERS)
def _load(path: Path, rate: int) -> Filter:
    return Filter(rate, np.load(path))


class Filters:
    """The folder of filters as a front uses it."""

    def __init__(self, folder: Path, make: Callable[[int], Awaitable[None]]) -> None:
        """make: has a device process put the filter for a rate into the folder."""
        self.folder = folder
        self._make = make

    async def make(self, rate: int) -> None:
        """Have the filter for a rate in Hz made, unless it is there."""
        if not is_made(self.folder, rate):
            await self._make(rate)

    async def find(self, rate: int) -> Filter | None:
        """The filter for a rate in Hz; None for 16 kHz."""
        while True:
            await self.make(rate)
            with suppress(FileNotFoundError):  # removed meanwhile, for it was the oldest
                return await asyncio.to_thread(find_filter, self.folder, rate) if rate != SAMPLE_RATE else None
