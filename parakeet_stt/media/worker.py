"""Knows how files are decoded in processes of their own, under limits. Does not know who asks, or any model.

A program: `media.py` starts it, and sends to its standard input, a socket, one more socket for each decoder that it
wants. For each it forks a child, in a millisecond or two, since nothing here has imported torch.

Over its socket a child gets `REQUEST` with a file's descriptor, and answers with messages, each after its length
(`LENGTH`): JSON with the sample rate, unless the file can't be opened; pieces of sound, float32 mono; an empty message;
JSON with how it ended. Then it is free for the next file. One that does not survive a file just closes its socket.
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
from parakeet_stt.media import demux as decoding

REQUEST = struct.Struct("<d")  # the most seconds that may be decoded
LENGTH = struct.Struct("<I")
MEMORY_BYTES = 512 << 20  # of a child; ten hours of mp4 with its index need 60 MB
STALL_SECONDS = 30.0  # for one piece of sound, about a second of it
NICENESS = 10  # the recognizer's threads go first; a tenth of the share of a thread at 0


def main() -> None:
    """Fork a decoder for each socket that comes, until the service has ended."""
    control = socket.socket(fileno=0)
    for ignored in (signal.SIGINT, signal.SIGTERM):  # what is being decoded is finished; the service says when to end
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    os.nice(NICENESS)
    gc.collect()
    gc.freeze()
    while descriptors := socket.recv_fds(control, 1, 1)[1]:
        if os.fork() == 0:
            control.close()
            _serve(socket.socket(fileno=descriptors[0]))
        os.close(descriptors[0])


def _serve(connection: socket.socket) -> None:
    """The life of one decoder: file after file, until the service closes the connection."""
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
    """End this process once nobody waits for its answers any more, whatever it is at."""
    poll = select.poll()
    poll.register(connection, 0)  # for its end only
    poll.poll()
    os._exit(0)


def _answer(file: int, max_seconds: float, connection: socket.socket) -> None:
    def send(message: bytes | memoryview) -> None:
        signal.setitimer(signal.ITIMER_REAL, 0)  # the service takes as long as it wants
        connection.sendall(LENGTH.pack(len(message)))
        connection.sendall(message)
        signal.setitimer(signal.ITIMER_REAL, STALL_SECONDS)  # at its end the kernel ends this process

    signal.setitimer(signal.ITIMER_REAL, STALL_SECONDS)
    end: dict[str, Any]
    try:
        with open(file, "rb") as source:
            track = decoding.opened(source, max_seconds=max_seconds)
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
