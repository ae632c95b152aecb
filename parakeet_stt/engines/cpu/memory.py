"""Keeps memory that the recognizer has freed for its next batch, and returns it to the system now and then."""

from __future__ import annotations

import ctypes
import time

from parakeet_stt.memory import return_freed_memory

TRIM_SECONDS = 10.0  # between two trims; more often, they begin to take time
KEPT_BYTES = 1 << 30  # more than any tensor has
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3  # glibc's, of malloc.h


def keep_freed_memory() -> None:
    """Have glibc keep large blocks too once they are freed, for the next tensors.

    It returns them at once otherwise, and a batch's first touch of each page is a fault: 32,000 for 10 s of audio at
    0.6B, a sixth of the time in int8. Other C libraries have no `mallopt`.
    """
    if set_option := getattr(ctypes.CDLL(None), "mallopt", None):
        set_option(M_MMAP_THRESHOLD, KEPT_BYTES)
        set_option(M_TRIM_THRESHOLD, KEPT_BYTES)


class MemoryTrimmer:
    """Returns the allocator's free memory to the system now and then.

    Batches differ in shape, so memory freed after one seldom fits the next: glibc's heap grows by half a gigabyte in an
    hour of audio, most of it free (docs/benchmarks.md).
    """

    def __init__(self) -> None:
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Trim, unless the last trim was a moment ago."""
        if time.monotonic() - self._last > TRIM_SECONDS:
            return_freed_memory()
            self._last = time.monotonic()
