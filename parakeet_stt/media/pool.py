"""Knows how an uploaded file becomes audio without being decoded in this process. Does not know formats, or HTTP."""

from __future__ import annotations

import json
import logging
import os
import select
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

from parakeet_stt.audio import Samples
from parakeet_stt.errors import AudioError, AudioTooLong, AudioTooShort, UndecodableAudio
from parakeet_stt.media import resampling
from parakeet_stt.media.cpu_slots import Turns
from parakeet_stt.media.worker import LENGTH, REQUEST

logger = logging.getLogger(__name__)
PROGRAM = (sys.executable, "-m", "parakeet_stt.media.worker")
ROOT = Path(__file__).parents[2]
MOST_IDLE = 16  # decoders kept for files to come, of about 10 MB each
MOST_FILES = 100  # of one decoder: what a file may have done to it does not last
LARGEST_MESSAGE = 64 << 20  # bytes; no piece of sound has a hundredth of that
REFUSALS: dict[str, type[AudioError]] = {
    kind.__name__: kind for kind in (UndecodableAudio, AudioTooLong, AudioTooShort)
}


class Decoder:
    """One decoder process, as seen over its socket."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._incoming = connection.makefile("rb")
        self.files = 0  # that it has had

    @property
    def is_alive(self) -> bool:
        """Whether it waits for a file."""
        poll = select.poll()
        poll.register(self._connection, 0)
        return not poll.poll(0)

    def send(self, source: BinaryIO, max_seconds: float) -> None:
        """Have it decode a file. source: has a descriptor, or gets one when asked for it."""
        self.files += 1
        source.flush()
        socket.send_fds(self._connection, [REQUEST.pack(max_seconds)], [source.fileno()])

    def message(self) -> bytes:
        """The next part of its answer. Raises EOFError if it has ended."""
        (length,) = LENGTH.unpack(self._exactly(LENGTH.size))
        return self._exactly(min(length, LARGEST_MESSAGE))

    def end(self) -> None:
        """End it; whoever waits for a message gets EOFError. Any thread may."""
        with suppress(OSError):  # it has ended
            self._connection.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """End it, and let go of the socket; not while another thread waits for a message."""
        self.end()
        self._incoming.close()
        self._connection.close()

    def _exactly(self, size: int) -> bytes:
        try:
            found = self._incoming.read(size)
        except ConnectionResetError:
            found = b""
        if len(found) < size:
            raise EOFError
        return found


class Decoders:
    """All decoder processes: the program that forks them (`decoder_process.py`), and those that are idle."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._idle: list[Decoder] = []
        self._start()

    def borrow(self) -> Decoder:
        """One that is free, to be given back or closed."""
        with self._lock:
            while self._idle:
                decoder = self._idle.pop()
                if decoder.is_alive:
                    return decoder
                decoder.close()
            return self._forked()

    def give_back(self, decoder: Decoder) -> None:
        """Keep it for another file, now that it has answered all about the last."""
        with self._lock:
            if len(self._idle) < MOST_IDLE and decoder.files < MOST_FILES:
                self._idle.append(decoder)
                return
        decoder.close()

    def close(self) -> None:
        """End the program and all that are idle; those at work end when they are closed."""
        with self._lock:
            for decoder in self._idle:
                decoder.close()
            self._idle.clear()
            self._control.close()
            self._process.wait()

    def _forked(self) -> Decoder:
        mine, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
            except OSError:
                logger.warning("the process that forks decoders has ended, another is started")
                self._control.close()
                self._process.wait()
                self._start()
                socket.send_fds(self._control, [b"1"], [theirs.fileno()])
        return Decoder(mine)

    def _start(self) -> None:
        self._control, theirs = socket.socketpair()
        with theirs:
            # What reads untrusted files knows no keys.
            kept = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
            environment = {**kept, "OPENBLAS_NUM_THREADS": "1"}
            # In a session of its own: Ctrl-C is for the service, which finishes what it has begun.
            self._process = subprocess.Popen(  # noqa: S603
                PROGRAM, stdin=theirs.fileno(), cwd=ROOT, env=environment, start_new_session=True
            )


class Media(Iterator[Samples]):
    """A file on its way to audio: blocks of float32, shape (num_samples,), mono at 16 kHz.

    Blocking; each next block may be asked for by another thread, inside `turns.working`. on_crash: called when a
    decoder does not survive the file.
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
        self._decoders = decoders
        self._turns = turns
        self._on_crash = on_crash
        self._lock = threading.Lock()
        self._is_given_up = False
        self._decoder: Decoder | None = None
        self._blocks = self._decoded(source, max_seconds)

    def __next__(self) -> Samples:
        return next(self._blocks)

    def give_up(self) -> None:
        """Wait for no more blocks; any thread may."""
        with self._lock:
            self._is_given_up = True
            if self._decoder:
                self._decoder.end()

    def close(self) -> None:
        """Let go of everything; not while another thread asks for a block."""
        self._blocks.close()

    def _decoded(self, source: BinaryIO, max_seconds: float) -> Generator[Samples, None, None]:
        decoder = self._decoders.borrow()
        with self._lock:
            self._decoder = decoder
            if self._is_given_up:
                decoder.end()
        has_answered = False
        try:
            decoder.send(source, max_seconds)
            track = self._message(decoder)
            if track:
                yield from resampling.pieces_to_mono_16k(self._pieces(decoder), json.loads(track)["rate"])
            end: dict[str, Any] = json.loads(self._message(decoder))
            has_answered = True
        except (EOFError, BrokenPipeError):
            if not self._is_given_up:
                self._on_crash()
            raise UndecodableAudio(
                "The file could not be decoded: its decoder crashed, or took too much time or memory."
            ) from None
        finally:
            with self._lock:
                self._decoder = None
            if has_answered and not self._is_given_up:
                self._decoders.give_back(decoder)
            else:
                decoder.close()
        if "error" in end:
            raise REFUSALS[end["error"]](end["message"])
        self.is_truncated = end["truncated"]

    def _pieces(self, decoder: Decoder) -> Iterator[npt.NDArray[np.float32]]:
        while piece := self._message(decoder):
            yield np.frombuffer(piece, np.float32)[None]

    def _message(self, decoder: Decoder) -> bytes:
        with self._turns.waiting():
            return decoder.message()
