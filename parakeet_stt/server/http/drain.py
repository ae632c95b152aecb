"""Knows who is inside, live sessions and requests, when no more are let in, and when all have left. Nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager

from parakeet_stt.errors import Ending, Overloaded
from parakeet_stt.server.metrics import Metrics

RETRY_SECONDS = 5


class Occupancy:
    """The live sessions and the requests of one process."""

    def __init__(self, most_sessions: int, metrics: Metrics) -> None:
        self._most = most_sessions
        self._metrics = metrics
        self._sessions, self._requests = _Count(), _Count()
        self.ending = asyncio.Event()  # the service is about to end: sessions are to deliver what they have heard

    def check_open(self) -> None:
        """Raises Ending once the service is about to end, for whatever comes now."""
        if self.ending.is_set():
            raise Ending("The server is about to end. Please retry.", retry_after=RETRY_SECONDS)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Count a live session for as long as the context lasts. Raises Overloaded if there are too many."""
        if self._sessions.value >= self._most:
            self._metrics.sessions_refused.inc()
            raise Overloaded(
                f"No more live sessions are taken on: there are {self._most} already. Please retry after "
                f"{RETRY_SECONDS} s.",
                retry_after=RETRY_SECONDS,
            )
        with self._sessions.one_more(), self._metrics.sessions.track_inprogress():
            yield

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request that is answered for as long as the context lasts."""
        with self._requests.one_more():
            yield

    async def end(self, patience: float) -> None:
        """Let nobody in any more, and return when all have left: sessions after so many seconds at the latest.

        Until then whoever comes is told; afterwards nobody answers.
        """
        self.ending.set()
        await asyncio.wait({asyncio.ensure_future(self._sessions.none.wait())}, timeout=patience)
        await self._requests.none.wait()


class _Count:
    """How many there are. none: set while there are none."""

    def __init__(self) -> None:
        self.value = 0
        self.none = asyncio.Event()
        self.none.set()

    @contextmanager
    def one_more(self) -> Iterator[None]:
        self.value += 1
        self.none.clear()
        try:
            yield
        finally:
            self.value -= 1
            if not self.value:
                self.none.set()
