"""Starts the device processes and the media program, and starts again those that end. Runs in the service's parent.

A program gets one end of a socket pair as its standard input, its lifeline: it ends when the other end closes, so that
none outlives the service, however that ends. On it the program says how it is doing, a line each: `ready`; a dot now
and then; `failed: ` and the reason, if starting it again is of no use.
"""

from __future__ import annotations

import logging
import os
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

logger = logging.getLogger(__name__)
ROOT = Path(__file__).parents[2]
READY, BEAT, FAILED = "ready", ".", "failed: "
HANG_SECONDS = 60.0  # without a word from a program that is ready, before it is ended
MAX_FAILURES = 3  # starts in a row after which a program was not ready
RETRY_SECONDS = 1.0  # between two of them
END_SECONDS = 1.0  # for a program to end by itself; none has anything to save
# glibc's: a process keeps the memory of a clip. To give it back and get it again costs a media worker as much as
# decoding, and the recognizer on a CPU 8 % of its time (it keeps more itself: engines/cpu/memory.py).
KEEP_MEMORY = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(16 << 20)}
ONE_THREAD = {"OPENBLAS_NUM_THREADS": "1"}  # numpy's products would spread over the cores, and wait for each other


@dataclass(frozen=True, slots=True)
class Program:
    """A program to be kept running. module: as after `python -m`. environment: beside the parent's own.

    counts_restarts: whether it is told how often it was started before, as its last argument.
    """

    name: str
    module: str
    arguments: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=lambda: dict(os.environ))
    counts_restarts: bool = False

    def start(self, restarts: int = 0) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start it. Returns the process, and our end of its lifeline."""
        ours, theirs = socket.socketpair()
        path = os.pathsep.join([str(ROOT), *filter(None, [self.environment.get("PYTHONPATH")])])
        counted = [str(restarts)] if self.counts_restarts else []
        with theirs:
            process = subprocess.Popen(  # noqa: S603
                [sys.executable, "-m", self.module, *self.arguments, *counted],
                stdin=theirs.fileno(),
                env={**self.environment, "PYTHONPATH": path},
                # Ctrl-C reaches the service's parent only, which finishes its requests. In a session of its own a
                # media worker's niceness would count for nothing: sched(7), "The autogroup feature".
                process_group=0,
            )
        return process, ours


class Supervisor:
    """Keeps programs running. on_failure: called once, in a thread, when one can't be kept running, with the reason."""

    def __init__(self, programs: Sequence[Program], on_failure: Callable[[str], None]) -> None:
        self._on_failure = on_failure
        self._is_closing = threading.Event()
        self._lifelines: dict[str, socket.socket] = {}
        self._lock = threading.Lock()  # of the lifelines
        self._threads = [
            threading.Thread(target=self._keep, args=(program,), name=f"keep {program.name}", daemon=True)
            for program in programs
        ]

    def start(self) -> None:
        """Start all programs."""
        for thread in self._threads:
            thread.start()

    def close(self) -> None:
        """Have all programs end, and wait for that."""
        self._is_closing.set()
        with self._lock:
            for lifeline in self._lifelines.values():
                with suppress(OSError):
                    lifeline.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join(2 * END_SECONDS)

    def _keep(self, program: Program) -> None:
        failures, restarts = 0, 0
        while not self._is_closing.is_set():
            process, lifeline = program.start(restarts)
            with self._lock:
                self._lifelines[program.name] = lifeline
                if self._is_closing.is_set():
                    lifeline.shutdown(socket.SHUT_RDWR)
            was_ready, reason = _follow(lifeline, process)
            lifeline.close()
            _wait(process)
            if self._is_closing.is_set():
                return
            failures = 0 if was_ready else failures + 1
            if reason or failures == MAX_FAILURES:
                self._on_failure(reason or f"{program.name} has ended {failures} times before it was ready")
                return
            restarts += 1
            logger.error("%s has ended and is started again", program.name)
            if failures:
                time.sleep(RETRY_SECONDS)


def _follow(lifeline: socket.socket, process: subprocess.Popen[bytes]) -> tuple[bool, str]:
    """Read what a program says until it ends. Returns whether it was ready, and why it can't start, if it says so."""
    was_ready, reason = False, ""
    text = b""
    while True:
        lifeline.settimeout(HANG_SECONDS if was_ready else None)
        try:
            data = lifeline.recv(1 << 16)
        except TimeoutError:
            logger.error("process %d has said nothing for %.0f s and is ended", process.pid, HANG_SECONDS)
            process.kill()
            return was_ready, reason
        except OSError:
            data = b""
        if not data:
            return was_ready, reason
        *lines, text = (text + data).split(b"\n")
        for line in lines:
            said = line.decode(errors="replace")
            was_ready = was_ready or said == READY
            if said.startswith(FAILED):
                reason = said.removeprefix(FAILED)


def _wait(process: subprocess.Popen[bytes]) -> None:
    try:
        process.wait(END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
