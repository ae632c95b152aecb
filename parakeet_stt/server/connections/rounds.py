"""Reads sockets that keep sending in rounds: all that has come since the last round, on all of them together.

A live session sends some fifty frames a second. Each would wake the event loop by itself.
"""

from __future__ import annotations

import asyncio
import weakref
from typing import ClassVar, Protocol

from parakeet_stt.vad import WINDOW_SECONDS

# Time to the next round: for each socket in the last one, and at most, in which each session completes a window of the
# detector. A few sockets hardly wait.
SECONDS_PER_SOCKET, MAX_SECONDS = 0.0015, WINDOW_SECONDS


class Member(Protocol):
    """A connection that the event loop does not read meanwhile."""

    def read_now(self) -> bool:
        """Read what has come. Returns whether anything had; if not, the event loop reads again."""
        ...

    def abort(self) -> None:
        """End the connection: reading it has failed."""
        ...


class Rounds:
    """The sockets of one event loop that are read in rounds."""

    _of_loops: ClassVar[weakref.WeakKeyDictionary[asyncio.AbstractEventLoop, Rounds]] = weakref.WeakKeyDictionary()

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = weakref.proxy(loop)  # by which these are found: it is not to be kept
        self._members: dict[Member, None] = {}
        self._last_size = 1  # sockets in the last round
        self._is_planned = False  # whether the next round is

    @classmethod
    def of(cls, loop: asyncio.AbstractEventLoop) -> Rounds:
        """Those of this loop."""
        return cls._of_loops.get(loop) or cls._of_loops.setdefault(loop, cls(loop))

    def join(self, member: Member) -> None:
        """Read this one in the rounds too, until nothing has come in one."""
        self._members[member] = None
        self._plan()

    def leave(self, member: Member) -> None:
        """Read this one no more."""
        self._members.pop(member, None)

    def _plan(self) -> None:
        if self._members and not self._is_planned:
            self._is_planned = True
            self._loop.call_later(min(MAX_SECONDS, SECONDS_PER_SOCKET * self._last_size), self._read)

    def _read(self) -> None:
        self._is_planned = False
        self._last_size = len(self._members)
        for member in list(self._members):
            if member in self._members and not self._read_one(member):
                self.leave(member)
        self._plan()

    def _read_one(self, member: Member) -> bool:
        try:
            return member.read_now()
        except Exception as exc:  # as a transport does then; the others are read all the same
            self._loop.call_exception_handler({"message": "a socket could not be read", "exception": exc})
            member.abort()
            return False
