"""What a process may do and whether another is there: open descriptors, memory, processes."""

from __future__ import annotations

import os
import resource
from contextlib import suppress
from pathlib import Path

# Of the container, by version 2 and version 1 of control groups; neither exists elsewhere.
MEMORY_LIMITS = ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes")


def allow_many_descriptors() -> None:
    """Raise this process's limit to what the system allows it, which needs no rights.

    Each recording and each live session has some descriptors in every process that handles it.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def memory_bytes() -> int:
    """Memory of this machine, or of the container that this process is in."""
    limits = [os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")]
    for path in MEMORY_LIMITS:
        with suppress(OSError, ValueError):  # "max" is no number
            limits.append(int(Path(path).read_text()))
    return min(limits)


def is_running(process: int) -> bool:
    """Whether there is a process of this number; no process has the number 0."""
    if not process:
        return False
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    except PermissionError:  # another user's
        return True
    return True
