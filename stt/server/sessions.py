"""Knows how many live sessions there are, and when no more are let in. Does not know what happens in them."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from stt.errors import Ending, Overloaded
from stt.server.metrics import Metrics

RETRY_SECONDS = 5


class Sessions:
    """The live sessions of one process."""

    def __init__(self, most: int, metrics: Metrics) -> None:
        self._most = most
        self._metrics = metrics
        self._count = 0
        self.ending = asyncio.Event()  # the service is about to end: sessions are to deliver what they have heard
        self._none = asyncio.Event()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Count one more for as long as the context lasts. Raises Overloaded if there are too many."""
        if self._count >= self._most:
            self._metrics.sessions_refused.inc()
            raise Overloaded(
                f"No more live sessions are taken on: there are {self._count} already. Please retry after "
                f"{RETRY_SECONDS} s.",
                retry_after=RETRY_SECONDS,
            )
        self._count += 1
        self._metrics.sessions.set(self._count)
        try:
            yield
        finally:
            self._count -= 1
            self._metrics.sessions.set(self._count)
            if not self._count:
                self._none.set()

    def check_open(self) -> None:
        """Raises Ending once the service is about to end, for whatever comes now."""
        if self.ending.is_set():
            raise Ending("The server is about to end. Please retry.", retry_after=RETRY_SECONDS)

    async def end(self, patience: float) -> None:
        """Have all of them deliver what they have heard and end; return when they have, or after so many seconds."""
        self.ending.set()
        if self._count:
            self._none.clear()
            await asyncio.wait({asyncio.ensure_future(self._none.wait())}, timeout=patience)
