"""Media workers: a program that decodes files in processes of their own, under limits.

The program listens at a Unix socket, and forks a worker for each connection, in a millisecond or two, since nothing
here has imported torch. A worker gets `Decode` with a file, and answers it and each `Next` with a `Block` of mono
16 kHz samples that it has written to shared memory; the last one has the `End`. Then it takes the next file. It ends
when its connection closes. The program keeps each connection open too, and says on it what has ended its worker.
"""

from __future__ import annotations

import gc
import os
import resource
import select
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.errors import AudioError
from parakeet_stt.ipc.channel import FrameParser, receive_some, send_all
from parakeet_stt.ipc.shared_audio import SAMPLE_BYTES, write_samples
from parakeet_stt.media import demux, filters, messages, resampling
from parakeet_stt.media.messages import WORKER_BYTES, Block, Decode, Died, End, NeedFilter
from parakeet_stt.memory import return_freed_memory
from parakeet_stt.protocols import SpeechDetector
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities

# For one piece of audio, about a second of it: of the processor's time, and of the clock's, which runs on while the
# machine gives the worker no time.
COMPUTE_SECONDS, STALL_SECONDS = 30.0, 90.0
IDLE_SECONDS = 1.0  # without a file, after which a worker gives back the memory of the last
BEAT_SECONDS = 1.0  # between two signs that the program is well
NICENESS = 10  # a tenth of the processor share of the recognizer's threads
FIRST_BLOCK_SAMPLES = 15 * 1000 // 32 * WINDOW_SAMPLES  # about 15 s: clips are one block, many files begin soon
BLOCK_SAMPLES = 30 * 1000 // 32 * WINDOW_SAMPLES  # about 30 s: of all that follow


@dataclass(frozen=True, slots=True)
class _Connection:
    """A worker's end of its connection. Blocking."""

    socket: socket.socket
    parser: FrameParser
    data_bytes: int  # of the process before it read any file

    def receive(self) -> tuple[Decode | messages.Next, list[int]]:
        """The next message, and its descriptors. Raises EOFError once the front is gone."""
        while True:
            data, descriptors = receive_some(self.socket)
            if not data:
                raise EOFError
            for message, own in self.parser.push(data, descriptors):  # a front sends one and waits for the answer
                return messages.decode_asked(message), own

    def own_bytes(self) -> int:
        """Memory that this process has taken for itself."""
        return max(0, _data_bytes() - self.data_bytes)

    def send(self, answer: NeedFilter | Block | End) -> None:
        """Send an answer. Raises OSError once the front is gone."""
        send_all(self.socket, messages.encode(answer))


def serve(
    listening: socket.socket, lifeline: socket.socket, detector: SpeechDetector | None, beat: Callable[[], None]
) -> None:
    """Fork a worker for each connection, until the lifeline closes.

    detector: used in the workers after the fork. listening: of the program; lifeline: open while the service lives.
    beat: called once a second, and must not block.
    """
    for ignored in (signal.SIGINT, signal.SIGTERM):  # files that are being decoded are finished
        signal.signal(ignored, signal.SIG_IGN)
    woken, waking = socket.socketpair()
    for one in (woken, waking):
        one.setblocking(False)
    signal.set_wakeup_fd(waking.fileno())  # `select` returns when a worker has ended
    signal.signal(signal.SIGCHLD, lambda *_: None)
    os.nice(NICENESS)
    gc.collect()
    gc.freeze()
    workers: dict[int, socket.socket] = {}  # by process
    while True:
        ready, _, _ = select.select([listening, lifeline, woken], [], [], BEAT_SECONDS)
        if lifeline in ready:
            signal.set_wakeup_fd(-1)  # before the two sockets are gone: workers still end
            return
        if woken in ready:
            woken.recv(1 << 16)
        _bury(workers)
        beat()
        if listening not in ready:
            continue
        connection, _ = listening.accept()
        process = os.fork()
        if process == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for one in (listening, lifeline, woken, waking, *workers.values()):
                one.close()
            _work(connection, detector)
        workers[process] = connection


def _bury(workers: dict[int, socket.socket]) -> None:
    """Tell fronts what has ended those of their workers that have ended."""
    with suppress(ChildProcessError):  # there are none
        while found := os.waitpid(-1, os.WNOHANG):
            process, status = found
            if not process:
                return
            with workers.pop(process) as connection, suppress(OSError):  # the front is gone
                connection.setblocking(False)
                code = os.waitstatus_to_exitcode(status)
                send_all(connection, messages.encode(Died(max(0, -code))))


def _work(connection: socket.socket, detector: SpeechDetector | None) -> None:
    """Decode file after file, until the front closes the connection."""
    status = 1
    try:
        limit = _data_bytes() + WORKER_BYTES
        resource.setrlimit(resource.RLIMIT_DATA, (limit, limit))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        with suppress(EOFError, OSError):
            end = _Connection(connection, FrameParser(), limit - WORKER_BYTES)
            poll = select.poll()
            poll.register(connection, select.POLLIN)
            while True:
                if not poll.poll(1000 * IDLE_SECONDS):
                    gc.collect()
                    return_freed_memory()  # what the last file took
                asked, descriptors = end.receive()
                if isinstance(asked, Decode):
                    _answer(asked, descriptors, end, detector)
        status = 0
    finally:
        os._exit(status)


def _data_bytes() -> int:
    """What counts for RLIMIT_DATA now; 0 where the system does not tell."""
    try:
        return int(Path("/proc/self/statm").read_text().split()[5]) * resource.getpagesize()
    except OSError:
        return 0


def _end_with(connection: socket.socket) -> None:
    """End this process once the other end of the connection is closed, whatever it is doing."""
    poll = select.poll()
    poll.register(connection, 0)  # reports the closing only
    poll.poll()
    os._exit(0)


def _answer(asked: Decode, descriptors: list[int], connection: _Connection, detector: SpeechDetector | None) -> None:
    upload, audio = descriptors
    limit = SAMPLE_BYTES * int(asked.max_seconds + 60) * SAMPLE_RATE
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.getrlimit(resource.RLIMIT_FSIZE)[1]))
    end: End | None = None  # unless the last block has it
    _wind_clock(COMPUTE_SECONDS, STALL_SECONDS)
    try:
        with open(upload, "rb") as source:
            track = demux.open_track(source, max_seconds=asked.max_seconds, channel=asked.channel)
            written = 0
            for number, (samples, probabilities, is_last) in enumerate(_blocks(track, asked, connection, detector)):
                if number >= asked.skip:
                    write_samples(audio, written, samples)
                    _wind_clock(0, 0)  # the front may ask slowly
                    found = None if probabilities is None else probabilities.tobytes()
                    last = End(track.is_truncated) if is_last else None
                    connection.send(Block(len(samples), found, last, connection.own_bytes(), track.channels))
                    if not is_last:
                        connection.receive()
                _wind_clock(COMPUTE_SECONDS, STALL_SECONDS)
                written += len(samples)
    except AudioError as exc:
        end = End(error=type(exc).__name__, message=exc.message, memory=connection.own_bytes())
    finally:
        os.close(audio)
    _wind_clock(0, 0)
    if end is not None:
        connection.send(end)


def _blocks(
    track: demux.Track, asked: Decode, connection: _Connection, detector: SpeechDetector | None
) -> Iterator[tuple[Samples, Probabilities | None, bool]]:
    """The file's audio in whole blocks, the last one shorter; the probabilities of speech; whether it is the last."""
    made = _find_filter(track.rate, Path(asked.filters), connection)
    stream = DetectorStream(detector) if detector else None
    pieces = resampling.resample_pieces(track.pieces, made)
    for samples, is_last in _regroup(pieces, lambda: _wind_clock(COMPUTE_SECONDS, STALL_SECONDS)):
        if stream is None:
            yield samples, None, is_last
        else:
            found = stream.push(samples)
            yield samples, np.concatenate([found, stream.flush()]) if is_last else found, is_last


def _find_filter(rate: int, folder: Path, connection: _Connection) -> resampling.Filter | None:
    if not filters.is_made(folder, rate):
        _wind_clock(0, 0)
        connection.send(NeedFilter(rate))
        connection.receive()
        _wind_clock(COMPUTE_SECONDS, STALL_SECONDS)
    return filters.find_filter(folder, rate)


def _regroup(pieces: Iterator[Samples], on_piece: Callable[[], None]) -> Iterator[tuple[Samples, bool]]:
    """The same samples in blocks, the last one shorter; and whether it is the last."""
    waiting: list[Samples] = []
    count, size = 0, FIRST_BLOCK_SAMPLES
    for piece in pieces:
        on_piece()
        waiting.append(piece)
        count += len(piece)
        while count > size:
            joined = np.concatenate(waiting)
            yield joined[:size], False
            waiting = [joined[size:]]
            count -= size
            size = BLOCK_SAMPLES
    yield np.concatenate([np.zeros(0, np.float32), *waiting]), True


def _wind_clock(compute: float, wait: float) -> None:
    """Have the kernel end this process after so many seconds of its own time, or of the clock's; 0 for never."""
    signal.setitimer(signal.ITIMER_PROF, compute)
    signal.setitimer(signal.ITIMER_REAL, wait)
