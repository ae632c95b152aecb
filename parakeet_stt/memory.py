"""Gives memory back to the system."""

from __future__ import annotations

import ctypes


def return_freed_memory() -> None:
    """Return the allocator's free memory to the system. Other C libraries than glibc have no `malloc_trim`."""
    if trim := getattr(ctypes.CDLL(None), "malloc_trim", None):
        trim(0)
