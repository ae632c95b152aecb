"""A program's end of its lifeline; see supervisor.py."""

from __future__ import annotations

import socket
from contextlib import suppress

from parakeet_stt.processes.supervisor import BEAT, FAILED, READY


class Lifeline:
    """The lifeline of this process: its standard input."""

    def __init__(self) -> None:
        self.socket = socket.socket(fileno=0)

    def say_ready(self) -> None:
        """This process serves from now on."""
        self._say(READY)

    def beat(self) -> None:
        """This process is well."""
        self._say(BEAT)

    def fail(self, reason: str) -> None:
        """This process can't start, and could not if it was started again."""
        self._say(FAILED + " ".join(reason.split()))

    def _say(self, line: str) -> None:
        with suppress(OSError):  # the parent does not read, or is gone: the program notices that where it waits
            self.socket.send(f"{line}\n".encode(), socket.MSG_DONTWAIT)
