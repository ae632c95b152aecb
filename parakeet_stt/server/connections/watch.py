"""Looks at a connection once a second, and ends it when its client does not read what it is sent."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

CHECK_SECONDS = 1.0
UNREAD_SECONDS = 60.0  # in which a client must have read some of what waits for it; nginx' send_timeout is the same
ENDING_SECONDS = 2.0  # likewise once the service ends
MAX_UNREAD_BYTES = 1 << 20  # of answers to a client's own pings, which nothing else holds up


class Watch:
    """Watches one connection until `stop`. on_check: called each time with the event loop's time."""

    def __init__(self, transport: asyncio.Transport, on_check: Callable[[float], None] = lambda _: None) -> None:
        self._transport = transport
        self._on_check = on_check
        self._loop = asyncio.get_running_loop()
        self._unread_bytes, self._read_at = 0, self._loop.time()
        self._most_seconds = UNREAD_SECONDS
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)

    def stop(self) -> None:
        """The connection is over, or another watch has it."""
        self._timer.cancel()

    def hurry(self) -> None:
        """The service ends: give the client less time."""
        self._most_seconds = ENDING_SECONDS

    def _check(self) -> None:
        now = self._loop.time()
        unread = self._transport.get_write_buffer_size()
        if not unread or unread < self._unread_bytes:
            self._read_at = now
        self._unread_bytes = unread
        if now - self._read_at > self._most_seconds:
            self._transport.abort()  # closing would wait until all is read
            return
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        self._on_check(now)
