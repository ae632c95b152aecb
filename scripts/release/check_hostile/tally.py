"""What came of everything: counts, what was wrong, and the memory and life of the service's processes."""

from __future__ import annotations

import itertools
import time
from collections import Counter
from collections.abc import Iterator

import httpx
import psutil  # type: ignore[import-untyped]

PROVOKED = (503, 507)  # of the 5xx, those that a caller can bring about
LASTING = ("worker.service", "processes.device", "processes.media")


def within(seconds: float, count: int) -> Iterator[int]:
    """The numbers from 0 to `count`, as long as the time lasts."""
    over = time.monotonic() + seconds
    return itertools.takewhile(lambda _: time.monotonic() < over, range(count))


class Tally:
    """Counts answers. memory: megabytes of all processes, each time it was measured."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.memory: list[int] = []
        self._parent = 0
        self._lasting: set[int] = set()

    def watch_processes(self, parent: int) -> None:
        """Remember the processes that no caller may end, among this one's."""
        self._parent = parent
        self._lasting = self._find_lasting()

    def check_processes(self, part: str) -> None:
        """Say it if one of them has ended, and measure the memory."""
        if self._find_lasting() != self._lasting:
            self.wrong.append(f"{part}: a process has ended")
            self._lasting = self._find_lasting()
        self.memory.append(round(sum(_memory(one) for one in self._all()) / 1e6))

    def answered(self, part: str, answer: httpx.Response) -> None:
        """Count an answer to an attack, which may be anything but a failure of the service."""
        self.counts[f"{part} {answer.status_code}"] += 1
        if answer.status_code >= 500 and answer.status_code not in PROVOKED:
            self.wrong.append(f"{part}: {answer.status_code} {answer.text[:200]}")

    def heard(self, part: str, found: str, expected: str) -> None:
        """Count a text that is known."""
        self.counts[f"{part} text"] += 1
        if found != expected:
            self.wrong.append(f"{part}: {found!r} in place of {expected!r}")

    def _all(self) -> list[psutil.Process]:
        return list(psutil.Process(self._parent).children(recursive=True))

    def _find_lasting(self) -> set[int]:
        found = set()
        for process in self._all():
            try:
                command, above = " ".join(process.cmdline()), process.parent()
                is_worker = above is not None and "processes.media" in " ".join(above.cmdline())
            except psutil.Error:  # it has ended, or is ending
                continue
            if any(word in command for word in LASTING) and not is_worker:
                found.add(process.pid)
        return found


def _memory(process: psutil.Process) -> int:
    try:
        return int(process.memory_full_info().pss)
    except psutil.Error:
        return 0
