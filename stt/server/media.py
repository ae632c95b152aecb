"""Knows how an uploaded file becomes audio without being decoded in this process. Does not know formats, or HTTP."""

from __future__ import annotations

import json
import logging
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from models import resampling
from stt.audio import Samples
from stt.errors import AudioError, AudioTooLong, AudioTooShort, UndecodableAudio
from stt.server.decoder_process import LENGTH, REQUEST
from stt.server.turns import Turns

logger = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "stt.server.decoder_process")
ROOT = Path(__file__).parents[2]
REFUSALS: dict[str, type[AudioError]] = {
    kind.__name__: kind for kind in (UndecodableAudio, AudioTooLong, AudioTooShort)
}
LARGEST_MESSAGE = 64 << 20  # no piece of sound has a hundredth of that


class Decoders:
    """The program that decodes every file in a process of its own (`decoder_process.py`), started and kept running."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._process: subprocess.Popen[bytes] | None = None
        self._control: socket.socket | None = None
        with self._lock:
            self._start()

    def send(self, source: BinaryIO, max_seconds: float, answers: socket.socket) -> None:
        """Have a file decoded, and the answer sent to `answers`. source: with a descriptor, which a spooled one gets."""
        source.flush()
        with self._lock:
            for last in (False, True):
                try:
                    assert self._control is not None
                    socket.send_fds(self._control, [REQUEST.pack(max_seconds)], [source.fileno(), answers.fileno()])
                    return
                except OSError:
                    if last:
                        raise
                    logger.warning("the decoders' process has ended, another is started")
                    self._end()
                    self._start()

    def close(self) -> None:
        """End the program; the processes that are at a file end with it."""
        with self._lock:
            self._end()

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
            # In a session of its own: Ctrl-C is for the service, which finishes what it has begun.
            self._process = subprocess.Popen(  # noqa: S603
                PROGRAM, stdin=theirs.fileno(), cwd=ROOT, env=environment, start_new_session=True
            )

    def _end(self) -> None:
        if self._control and self._process:
            self._control.close()
            self._process.wait()


class Media(Iterator[Samples]):
    """A file on its way to audio: blocks of float32, shape (num_samples,), mono at 16 kHz.

    Blocking; each next block may be asked for by another thread, inside `turns.working`.
    Iterating raises UndecodableAudio, AudioTooShort at the end, or AudioTooLong; see `decoding.opened`.
    """

    def __init__(
        self,
        source: BinaryIO,
        decoders: Decoders,
        turns: Turns,
        *,
        max_seconds: float,
        on_crash: Callable[[], None],
    ) -> None:
        self.is_truncated = False  # known once there are no more blocks
        self._is_given_up = False
        self._turns = turns
        self._on_crash = on_crash
        self._mine, theirs = socket.socketpair()
        self._incoming = self._mine.makefile("rb")
        self._blocks = self._decoded(source, decoders, theirs, max_seconds)

    def __next__(self) -> Samples:
        return next(self._blocks)

    def give_up(self) -> None:
        """End the decoder, and whoever waits for it; any thread may."""
        self._is_given_up = True
        with suppress(OSError):  # it has ended
            self._mine.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Let go of everything; not while another thread asks for a block."""
        self._blocks.close()
        self._incoming.close()
        self._mine.close()

    def _decoded(
        self, source: BinaryIO, decoders: Decoders, theirs: socket.socket, max_seconds: float
    ) -> Generator[Samples, None, None]:
        with theirs:
            decoders.send(source, max_seconds, theirs)
        try:
            with self._turns.waiting():
                track = self._message()
            if track:
                yield from resampling.pieces_to_mono_16k(self._pieces(), json.loads(track)["rate"])
            verdict: dict[str, Any] = json.loads(self._message())
        except EOFError:
            if not self._is_given_up:
                self._on_crash()
            raise UndecodableAudio(
                "The file could not be decoded: its decoder crashed, or took too much time or memory."
            ) from None
        if "error" in verdict:
            raise REFUSALS[verdict["error"]](verdict["message"])
        self.is_truncated = verdict["truncated"]

    def _pieces(self) -> Iterator[npt.NDArray[np.float32]]:
        while True:
            with self._turns.waiting():
                message = self._message()
            if not message:
                return
            yield np.frombuffer(message, np.float32)[None]

    def _message(self) -> bytes:
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return self._exactly(min(length, LARGEST_MESSAGE))

    def _exactly(self, size: int) -> bytes:
        found = self._incoming.read(size)
        if len(found) < size:
            raise EOFError
        return found
