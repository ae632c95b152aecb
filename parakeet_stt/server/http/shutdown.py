"""Knows what happens between the signal to end and the end: who is inside is served, and who comes now is told.

The server that runs the app is told of the signal only then: at once, it would close its sockets, and leave whoever
comes now without an answer. Does not know who is inside.
"""

from __future__ import annotations

import asyncio
import signal
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

SIGNALS = (signal.SIGTERM, signal.SIGINT)


@asynccontextmanager
async def ending_first(finish: Callable[[], Awaitable[None]]) -> AsyncIterator[None]:
    """While the context lasts, have `finish` done before the server's own handlers hear of a signal to end.

    A second signal does not wait for it.
    """
    if threading.current_thread() is not threading.main_thread():  # signals come to the main thread only
        yield
        return
    loop = asyncio.get_running_loop()
    before = {number: signal.getsignal(number) for number in SIGNALS}
    finishing: set[asyncio.Future[None]] = set()

    def pass_on(number: signal.Signals) -> None:
        handler = before[number]
        if callable(handler):
            handler(number, None)

    def hear(number: signal.Signals) -> None:
        if finishing:
            pass_on(number)
            return
        task = asyncio.ensure_future(finish())
        finishing.add(task)
        task.add_done_callback(lambda _: pass_on(number))

    for number in SIGNALS:
        loop.add_signal_handler(number, hear, number)
    try:
        yield
    finally:
        for number in SIGNALS:
            loop.remove_signal_handler(number)
            signal.signal(number, before[number])
