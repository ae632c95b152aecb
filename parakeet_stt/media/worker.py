"""The media worker: a program that decodes files in processes of their own, under limits.

`pool.py` starts the program, and sends one socket for each worker that it needs to the program's standard input, itself
a socket. For each socket the program forks a worker, in a millisecond or two, since nothing here has imported torch.

A worker receives `REQUEST` with a file's descriptor over its socket. It answers with messages, each after its length
(`LENGTH`): JSON with the sample rate, unless the file can't be opened; pieces of audio, float32 mono; an empty message;
JSON with how decoding ended. Then it takes the next file. If the worker dies, its socket closes.
"""

from __future__ import annotations

import gc
import json
import os
import resource
import select
import signal
import socket
import struct
import threading
from contextlib import suppress
from typing import Any

from parakeet_stt.errors import AudioError
from parakeet_stt.media import demux

REQUEST = struct.Struct("<d")  # limit of the seconds to decode
LENGTH = struct.Struct("<I")
MEMORY_BYTES = 512 << 20  # of a worker; ten hours of mp4 with its index need 60 MB
STALL_SECONDS = 30.0  # for one piece of audio, about a second of it
NICENESS = 10  # a tenth of the processor share of the recognizer's threads


def main() -> None:
    """Fork a worker for each socket that arrives, until the service has ended."""
    control = socket.socket(fileno=0)
    for ignored in (
        signal.SIGINT,
        signal.SIGTERM,
    ):  # files that are being decoded are finished; the service closes the socket
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no parent waits for the children
    os.nice(NICENESS)
    gc.collect()
    gc.freeze()
    while descriptors := socket.recv_fds(control, 1, 1)[1]:
        if os.fork() == 0:
            control.close()
            _serve(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _serve(connection: socket.socket) -> None:
    """Decode file after file, until the service closes the connection."""
    status = 1
    try:
        resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
        threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
        with suppress(BrokenPipeError):
            while True:
                request, descriptors, _, _ = socket.recv_fds(connection, REQUEST.size, 1)
                if not descriptors:
                    break
                _answer(descriptors[0], REQUEST.unpack(request)[0], connection)
        status = 0
    finally:
        os._exit(status)


def _end_with(connection: socket.socket) -> None:
    """End this process once the other end of the connection is closed, whatever it is doing."""
    poll = select.poll()
    poll.register(connection, 0)  # reports the closing only
    poll.poll()
    os._exit(0)


def _answer(file: int, max_seconds: float, connection: socket.socket) -> None:
    def send(message: bytes | memoryview) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # the service may read slowly
        connection.sendall(LENGTH.pack(len(message)))
        connection.sendall(message)
        signal.setitimer(signal.ITIMER_REAL, STALL_SECONDS)  # when it expires, the kernel ends this process

    signal.setitimer(signal.ITIMER_REAL, STALL_SECONDS)
    end: dict[str, Any]
    try:
        with open(file, "rb") as source:
            track = demux.open_track(source, max_seconds=max_seconds)
            send(json.dumps({"rate": track.rate}).encode())
            for piece in track.pieces:
                if len(piece):
                    send(piece.data.cast("B"))
        end = {"truncated": track.is_truncated}
    except AudioError as exc:
        end = {"error": type(exc).__name__, "message": exc.message}
    send(b"")
    send(json.dumps(end).encode())
    signal.setitimer(signal.ITIMER_REAL, 0)


if __name__ == "__main__":
    main()
