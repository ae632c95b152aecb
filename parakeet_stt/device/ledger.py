"""The ledger of one device: what waits for it, and how fast it is, in memory that all fronts share.

Each front writes its own row and reads all of them, so that fronts admit recordings and sessions by the same sums
without asking anybody. The device process writes the first row. The rows of fronts that have ended do not count.
"""

from __future__ import annotations

import fcntl
import math
import mmap
import os
from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum
from pathlib import Path

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import Overloaded
from parakeet_stt.ipc.limits import is_running
from parakeet_stt.protocols import Priority

MAX_FRONTS = 64
# Longest queue unless the operator sets one: seconds of work for the device, and at least so many seconds of audio.
QUEUE_WORK_SECONDS, QUEUE_AUDIO_SECONDS = 60.0, 1800.0
UNREAD_SECONDS = 5.0  # what an admitted recording counts as while its audio is not known: a short clip
RETRY_SECONDS = 5  # for a session that is refused


class _Device(IntEnum):
    """Columns of the first row. SPEED: padded seconds a second. BATCH: padded seconds that a batch may hold."""

    SPEED = 0
    BATCH = 1
    MAX_WAITING = 2  # seconds; 0 for the rule above
    MAX_SESSIONS = 3


class _Front(IntEnum):
    """Columns of the others. WAITING and the two after it: samples without an answer, by priority."""

    PROCESS = 0
    WAITING = 1
    UNREAD = 4
    SESSIONS = 5
    CONNECTIONS = 6


class Ledger:
    """One process's view of the ledger."""

    def __init__(self, path: Path) -> None:
        """path: of the file; it is made if it is not there."""
        self._file = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        shape = (1 + MAX_FRONTS, 1 + max(_Front))
        size = 8 * math.prod(shape)
        os.ftruncate(self._file, size)
        self._rows = np.frombuffer(mmap.mmap(self._file, size), np.float64).reshape(shape)
        self._own = self._rows[0]  # until this process has a row

    # What the device process writes.

    def set_limits(self, *, max_waiting: float | None, max_sessions: int) -> None:
        """max_waiting: seconds of audio that may wait before recordings are refused; None for the device's own rule:

        what it does in a minute at its present speed, or half an hour if that is more.
        """
        self._rows[0, _Device.MAX_WAITING] = max_waiting or 0.0
        self._rows[0, _Device.MAX_SESSIONS] = max_sessions

    def set_pace(self, *, speed: float, batch_seconds: float) -> None:
        """speed: padded seconds a second. batch_seconds: padded seconds that a batch may hold."""
        self._rows[0, [_Device.SPEED, _Device.BATCH]] = speed, batch_seconds

    # What fronts write and read.

    @property
    def batch_seconds(self) -> float:
        """Padded seconds that a batch may hold now."""
        return float(self._rows[0, _Device.BATCH])

    def join(self) -> None:
        """Take a row for this front. Raises OSError if there are too many fronts."""
        with self._locked():
            for row in self._rows[1:]:
                if not is_running(int(row[_Front.PROCESS])):
                    row[:] = 0
                    row[_Front.PROCESS] = os.getpid()
                    self._own = row
                    return
        raise OSError("too many fronts")

    def waiting_seconds(self) -> float:
        """Seconds of audio of all fronts that have no answer yet."""
        return sum(sum(row[_Front.WAITING : _Front.UNREAD]) for row in self._fronts()) / SAMPLE_RATE

    @property
    def speed(self) -> float:
        """Padded seconds that the device decodes in a second."""
        return float(self._rows[0, _Device.SPEED])

    @property
    def max_sessions(self) -> int:
        """Live sessions that may be open."""
        return int(self._rows[0, _Device.MAX_SESSIONS])

    @property
    def open_sessions(self) -> int:
        """Live sessions of all fronts."""
        return sum(int(row[_Front.SESSIONS]) for row in self._fronts())

    def count(self, priority: Priority, samples: int) -> None:
        """So many more samples wait; less, if negative."""
        self._own[_Front.WAITING + priority] += samples

    def admit(self) -> None:
        """Admit a recording, or raise Overloaded. It counts as `UNREAD_SECONDS` until `read`.

        The part of a long recording that is queued is bounded (`client.RecordingQueue`), so its length does not matter
        here, nor does audio of priority LONG.
        """
        speed = self.speed
        most = float(self._rows[0, _Device.MAX_WAITING]) or max(QUEUE_WORK_SECONDS * speed, QUEUE_AUDIO_SECONDS)
        waiting = 0.0
        for row in self._fronts():
            samples = row[_Front.WAITING + Priority.LIVE] + row[_Front.WAITING + Priority.SHORT]
            waiting += samples / SAMPLE_RATE + UNREAD_SECONDS * row[_Front.UNREAD]
        if waiting >= most:
            retry_after = max(1, math.ceil(waiting / speed)) if speed else RETRY_SECONDS
            raise Overloaded(
                f"The server is busy: {waiting:.0f} s of audio are waiting, and it takes on no more than "
                f"{most:.0f} s. Please retry after {retry_after} s.",
                retry_after=retry_after,
            )
        self._own[_Front.UNREAD] += 1

    def read(self) -> None:
        """The audio of one admitted recording is known now, or it is over."""
        self._own[_Front.UNREAD] -= 1

    @contextmanager
    def session(self) -> Iterator[None]:
        """Admit a live session for as long as the context lasts. Raises Overloaded if too many are open."""
        with self._locked():
            most = self.max_sessions
            if self.open_sessions >= most:
                raise Overloaded(
                    f"No more live sessions are taken on: there are {most} already. Please retry after "
                    f"{RETRY_SECONDS} s.",
                    retry_after=RETRY_SECONDS,
                )
            self._own[_Front.SESSIONS] += 1
        try:
            yield
        finally:
            self._own[_Front.SESSIONS] -= 1

    def count_connections(self, more: int) -> None:
        """So many more callers are connected to this front."""
        self._own[_Front.CONNECTIONS] += more

    def excess_connections(self) -> int:
        """How many more callers are connected to this front than to the one that has the fewest."""
        return int(self._own[_Front.CONNECTIONS] - min(row[_Front.CONNECTIONS] for row in self._fronts()))

    def _fronts(self) -> Iterator[list[float]]:
        """Copies of the rows of fronts that are running."""
        rows = self._rows[1:]
        for row in rows[rows[:, _Front.PROCESS] != 0].tolist():
            if is_running(int(row[_Front.PROCESS])):
                yield row

    @contextmanager
    def _locked(self) -> Iterator[None]:
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
