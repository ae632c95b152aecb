"""Draining: counts open requests and sessions, and refuses new ones once shutdown begins.

On SIGTERM the server that runs the app receives the signal only after the drain: it would close its sockets at once,
and leave clients that connect meanwhile without an answer.
"""

from __future__ import annotations

import asyncio
import logging
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress

from parakeet_stt.errors import ShuttingDown
from parakeet_stt.server.monitoring.metrics import Metrics

logger = logging.getLogger(__name__)
RETRY_SECONDS = 5
CLIENT_SECONDS = 30.0  # of a longer drain: for clients that are to send or to read
LAST_SECONDS = 1.0  # for a client, once that is over, and for the answers at the end
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """The open requests and live sessions of one process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._open = _Counter()
        self.started = asyncio.Event()  # set when shutdown begins: sessions are to deliver their last finals
        self.is_over = False  # whether the time is up in which clients may still send and read
        self._waits: set[asyncio.Timeout] = set()  # for clients
        self._work: set[asyncio.Timeout] = set()  # of all requests and sessions

    def check_open(self) -> None:
        """Raise ShuttingDown once shutdown has begun."""
        if self.started.is_set():
            raise ShuttingDown("The server is about to end. Please retry.", retry_after=RETRY_SECONDS)

    @asynccontextmanager
    async def session(self) -> AsyncIterator[None]:
        """Count a live session while the context lasts. Raises ShuttingDown at the end of the drain."""
        with self._metrics.sessions.track_inprogress():
            async with self.request():
                yield

    @asynccontextmanager
    async def request(self) -> AsyncIterator[None]:
        """Count a request while the context lasts. Raises ShuttingDown at the end of the drain."""
        limit = asyncio.timeout(None)
        self._work.add(limit)
        try:
            with self._open.count_one():
                async with limit:
                    yield
        except TimeoutError:
            if not limit.expired():
                raise
            raise ShuttingDown(
                "The server ends, and this is not finished. Please retry.", retry_after=RETRY_SECONDS
            ) from None
        finally:
            self._work.discard(limit)

    @asynccontextmanager
    async def wait_for_client(self, seconds: float | None) -> AsyncIterator[None]:
        """Wait for a request's client in this context, at most so long, and hardly after the drain is over.

        Raises TimeoutError.
        """
        async with asyncio.timeout(LAST_SECONDS if self.is_over else seconds) as limit:
            self._waits.add(limit)
            try:
                yield
            finally:
                self._waits.discard(limit)

    async def finish(self, seconds: float) -> None:
        """Refuse what is new, and wait for all requests and sessions, at most `seconds`. Then end those that are left.

        A request that waits for its client, for more of an upload or for the reading of an answer, has no more than
        `CLIENT_SECONDS` of them.
        """
        self.started.set()
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        await self._wait_for_all(min(seconds, CLIENT_SECONDS))
        self.is_over = True
        for limit in self._waits:
            limit.reschedule(loop.time() + LAST_SECONDS)
        await self._wait_for_all(max(0.0, end - loop.time()))
        if self._work:
            logger.warning("the drain is over: %d requests and sessions end unfinished", len(self._work))
        for limit in self._work:
            limit.reschedule(loop.time())
        await self._wait_for_all(LAST_SECONDS)

    async def _wait_for_all(self, seconds: float) -> None:
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._open.none.wait()


class _Counter:
    """A number of things. none: set while it is 0."""

    def __init__(self) -> None:
        self.value = 0
        self.none = asyncio.Event()
        self.none.set()

    @contextmanager
    def count_one(self) -> Iterator[None]:
        self.value += 1
        self.none.clear()
        try:
            yield
        finally:
            self.value -= 1
            if not self.value:
                self.none.set()


@asynccontextmanager
async def drain_on_signal(finish: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """While the context lasts, a signal to end runs `finish` before the server's own handlers.

    A second signal reaches the server's handlers at once.
    """
    if threading.current_thread() is not threading.main_thread():  # only the main thread receives signals
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    finishing: set[asyncio.Future[None]] = set()

    def pass_on(number: signal.Signals) -> None:
        handler = before[number]
        if callable(handler):
            handler(number, None)

    def handle(number: signal.Signals) -> None:
        if finishing:
            pass_on(number)
            return
        task = asyncio.ensure_future(finish())
        finishing.add(task)
        task.add_done_callback(lambda _: pass_on(number))

    for number in SIGNALS:
        loop.add_signal_handler(number, handle, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
