"""The limit of open descriptors: each recording and each live session has some in every process that handles it."""

from __future__ import annotations

import resource


def allow_many_descriptors() -> None:
    """Raise this process's limit to what the system allows it, which needs no rights."""
    _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
