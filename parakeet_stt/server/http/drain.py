"""Draining: counts open requests and sessions, and refuses new ones once shutdown begins.

On SIGTERM the server that runs the app receives the signal only after the drain: it would close its sockets at once,
and leave clients that connect meanwhile without an answer.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

from parakeet_stt.errors import ShuttingDown
from parakeet_stt.server.monitoring.metrics import Metrics

RETRY_SECONDS = 5
LAST_SECONDS = 1.0  # for a client, once the drain is over
SIGNALS = (signal.SIGTERM, signal.SIGINT)


class Drain:
    """The open requests and live sessions of one process."""

    def __init__(self, metrics: Metrics) -> None:
        self._metrics = metrics
        self._sessions, self._requests = _Counter(), _Counter()
        self.started = asyncio.Event()  # set when shutdown begins: sessions are to deliver their last finals
        self.is_over = False  # whether the time is up in which clients may still send and read
        self._waits: set[asyncio.Timeout] = set()  # for clients

    def check_open(self) -> None:
        """Raise ShuttingDown once shutdown has begun."""
        if self.started.is_set():
            raise ShuttingDown("The server is about to end. Please retry.", retry_after=RETRY_SECONDS)

    @contextmanager
    def session(self) -> Iterator[None]:
        """Count a live session while the context lasts."""
        with self._sessions.count_one(), self._metrics.sessions.track_inprogress():
            yield

    @contextmanager
    def request(self) -> Iterator[None]:
        """Count a request while the context lasts."""
        with self._requests.count_one():
            yield

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
        """Refuse what is new; wait for all requests and sessions, but for those of clients at most `seconds`.

        Then a session is left alone, and a request that waits for its client, for more of an upload or for the reading
        of an answer, ends. One that is being transcribed is waited for, and answered.
        """
        self.started.set()
        ends = {asyncio.ensure_future(counter.none.wait()) for counter in (self._sessions, self._requests)}
        _, unfinished = await asyncio.wait(ends, timeout=seconds)
        for end in unfinished:
            end.cancel()
        self.is_over = True
        for limit in self._waits:
            limit.reschedule(asyncio.get_running_loop().time() + LAST_SECONDS)
        await self._requests.none.wait()


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
