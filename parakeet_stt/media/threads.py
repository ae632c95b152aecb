"""How the threads that read media share the processor: their number, their priority."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

from parakeet_stt.media import resampling

NICENESS = 10  # a tenth of the processor share of a thread at 0


class CpuSlots:
    """At most `count` threads compute at once; a thread that waits for something else lets another one compute."""

    def __init__(self, count: int) -> None:
        self._free = threading.Semaphore(count)

    @contextmanager
    def computing(self) -> Iterator[None]:
        """Wait for a free slot, and keep it while the context lasts."""
        with self._free:
            yield

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Give the slot back while the context lasts. Inside `computing` only."""
        self._free.release()
        try:
            yield
        finally:
            self._free.acquire()


def lower_priority() -> None:
    """Make the calling thread use no other threads and yield to the recognizer's, of which each step waits for all."""
    resampling.use_one_thread()
    if sys.platform == "linux":  # where a thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)
