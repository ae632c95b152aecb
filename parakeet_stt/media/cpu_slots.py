"""Knows how many threads may be at work at once. Does not know their work."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager


class Turns:
    """At most `most` threads work at once; one that has to wait for something else lets another in meanwhile."""

    def __init__(self, most: int) -> None:
        self._free = threading.Semaphore(most)

    @contextmanager
    def working(self) -> Iterator[None]:
        """As soon as it is this thread's turn."""
        with self._free:
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """While this thread, inside `working`, does nothing."""
        self._free.release()
        try:
            yield
        finally:
            self._free.acquire()
