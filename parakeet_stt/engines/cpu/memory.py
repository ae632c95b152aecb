"""Returns memory that the recognizer has freed to the system."""

from __future__ import annotations

import ctypes
import time

TRIM_SECONDS = 2.0  # between two trims; more often, they begin to take time


class MemoryTrimmer:
    """Returns the allocator's free memory to the system now and then.

    Batches differ in shape, so memory freed after one seldom fits the next: glibc's heap grows by half a gigabyte in an
    hour of audio, most of it free (docs/benchmarks.md). Other C libraries have no `malloc_trim`.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Trim, unless the last trim was a moment ago."""
        if self._trim and time.monotonic() - self._last > TRIM_SECONDS:
            self._trim(0)
            self._last = time.monotonic()
