"""A front's end of a media program, for tests: files that are read, and a look at the program's processes."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import psutil  # type: ignore[import-untyped]

from parakeet_stt.audio import Samples
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.ipc.shared_audio import SharedAudio, create_memory_file, read_samples
from parakeet_stt.media.filters import save_filter
from parakeet_stt.media.pool import MediaReader, MediaSettings, WorkerPool
from parakeet_stt.vad import Probabilities
from tests.parts import media_program

PATIENCE = 30.0  # seconds; a loaded machine
TRAPPED = "tests.services.trapped_decoder"
T = TypeVar("T")


def eventually(is_so: Callable[[], Any]) -> bool:
    """Whether it becomes so while anybody has patience."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        if is_so():
            return True
        time.sleep(0.02)
    return False


async def soon(is_so: Callable[[], Any]) -> bool:
    """As `eventually`, while the event loop goes on."""
    return await asyncio.to_thread(eventually, is_so)


def descriptors() -> int:
    """Open descriptors of this process."""
    return len(os.listdir("/proc/self/fd"))


def has_ended(process: int) -> bool:
    """Whether a process has ended, although its parent may not have asked for its status yet."""
    try:
        return bool(psutil.Process(process).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


@dataclass(frozen=True)
class Media:
    """A running media program. filters: folder of the resampling filters."""

    path: Path
    filters: Path
    process: Any

    def workers(self) -> set[int]:
        """The numbers of its workers' processes."""
        return {one.pid for one in psutil.Process(self.process.pid).children()}

    def run(self, work: Callable[[WorkerPool], Awaitable[T]], *, computing: int = 2) -> T:
        """Run work of a front with workers of its own, all of which end with it."""

        async def main() -> T:
            pool = WorkerPool(self.path, computing=computing)
            try:
                return await work(pool)
            finally:
                pool.close()

        found = asyncio.run(main())
        assert eventually(lambda: not self.workers())
        return found

    def read(self, data: bytes, *, max_seconds: float = 1000) -> Reading:
        """Read a file to its end."""
        reading = Reading(self.filters, data, max_seconds=max_seconds)
        self.run(reading.all)
        return reading


@contextmanager
def running_media(folder: Path, *, module: str = TRAPPED, detect: bool = True) -> Iterator[Media]:
    """A media program in this folder, while the context lasts."""
    filters = folder / "filters"
    filters.mkdir(exist_ok=True)
    with media_program(folder / "media.sock", module=module, detect=detect) as process:
        yield Media(folder / "media.sock", filters, process)


class Reading:
    """A file that a front reads.

    lengths: samples of each block that came. crashes: that were counted. asked: rates of the filters that were asked
    for, which then were made.
    """

    def __init__(self, filters: Path, data: bytes, *, max_seconds: float = 1000) -> None:
        self.crashes = 0
        self.asked: list[int] = []
        self.lengths: list[int] = []
        self.samples: Samples = np.zeros(0, np.float32)
        self.found: list[Probabilities | None] = []
        self.audio = SharedAudio()
        self.reader: MediaReader
        self._upload = create_memory_file("upload")
        with os.fdopen(os.dup(self._upload), "wb") as file:
            file.write(data)
        self._settings = MediaSettings(max_seconds, filters, self._make_filter, self._count_crash)

    @property
    def probabilities(self) -> Probabilities:
        """Of speech in all windows so far."""
        return np.concatenate([one for one in self.found if one is not None])

    async def all(self, pool: WorkerPool) -> Samples:
        """Read all of the file, and close it."""
        try:
            self.begin(pool)
            await self.rest()
        finally:
            self.close()
        return self.samples

    def begin(self, pool: WorkerPool) -> None:
        """Nothing is read before `block`."""
        self.reader = MediaReader(self._upload, self.audio, pool, self._settings)
        self._blocks = self.reader.blocks()

    async def rest(self) -> None:
        """Read to the end."""
        while await self.block():
            pass

    async def block(self) -> bool:
        """Read the next block. Returns whether there was one."""
        before = self.audio.length
        try:
            self.found.append(await anext(self._blocks))
        except StopAsyncIteration:
            return False
        self.lengths.append(self.audio.length - before)
        self.samples = read_samples(self.audio.descriptor, 0, self.audio.length)
        return True

    def close(self) -> None:
        """Close the file, as a front does with whatever happens to a request."""
        if hasattr(self, "reader"):
            self.reader.close()
        self.audio.close()
        os.close(self._upload)

    async def _make_filter(self, rate: int) -> None:
        self.asked.append(rate)
        await asyncio.to_thread(save_filter, self._settings.filters, rate, make_filter)

    def _count_crash(self) -> None:
        self.crashes += 1
