"""What a process may do and whether another is there: open descriptors, processes."""

from __future__ import annotations

import os
import resource


def allow_many_descriptors() -> None:
    """Raise this process's limit to what the system allows it, which needs no rights.

    Each recording and each live session has some descriptors in every process that handles it.
    """
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


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
