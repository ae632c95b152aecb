"""Watches a connection: ends it when its client does not read what it is sent, and counts it among all fronts'."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from typing import ClassVar

from parakeet_stt.device.ledger import Ledger

CHECK_SECONDS = 1.0
UNREAD_SECONDS = 60.0  # in which a client must have read some of what waits for it; nginx' send_timeout is the same
ENDING_SECONDS = 2.0  # likewise once the service ends
# Fronts accept from one socket. Of connections that come together the front that is awake would take all, so one that
# has so many more than another pauses, in which the other wakes and accepts.
FEW_CONNECTIONS, PAUSE_SECONDS = 2, 0.001
MAX_UNREAD_BYTES = 1 << 20  # of answers to a client's own pings, which nothing else holds up


class Overdue:
    """Whether something is late at two looks, one after the other.

    After a stop the event loop calls what is due before it looks at its sockets, so at the first look what has come may
    not be read yet.
    """

    _was_late = False

    def look(self, *, is_late: bool) -> bool:
        """Look once more."""
        before, self._was_late = self._was_late, is_late
        return before and is_late


class Watch:
    """Watches one connection until `stop`. on_check: called each time with the event loop's time.

    ledger: in which all fronts count their connections, once it is there.
    """

    ledger: ClassVar[Ledger | None] = None

    @classmethod
    def let_others_accept(cls) -> None:
        """Pause if this front has more connections than another."""
        if cls.ledger and cls.ledger.excess_connections() > FEW_CONNECTIONS:
            time.sleep(PAUSE_SECONDS)

    def __init__(self, transport: asyncio.Transport, on_check: Callable[[float], None] = lambda _: None) -> None:
        self._transport = transport
        self._on_check = on_check
        self._loop = asyncio.get_running_loop()
        self._unread_bytes, self._read_at = 0, self._loop.time()
        self._most_seconds = UNREAD_SECONDS
        self._overdue = Overdue()
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        if self.ledger:
            self.ledger.count_connections(1)

    def stop(self) -> None:
        """The connection is over, or another watch has it."""
        if self.ledger and not self._timer.cancelled():  # else it was stopped before
            self.ledger.count_connections(-1)
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
        if self._overdue.look(is_late=now - self._read_at > self._most_seconds):
            self._transport.abort()  # closing would wait until all is read
            return
        self._timer = self._loop.call_later(CHECK_SECONDS, self._check)
        self._on_check(now)
