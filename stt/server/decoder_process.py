"""Knows how each file is decoded in a process of its own, under limits. Does not know who asks, or any model.

A program: `media.py` starts it and sends it files. It forks one child ahead of each, which serves that file and ends,
so that what a file does to its decoder touches neither the service nor the decoder of any other file. Forking takes a
millisecond or two, since nothing here has imported torch.

Its standard input is a socket. A request is `REQUEST` with two descriptors: the file, and a socket for the answer. The
answer is a sequence of messages, each after its length (`LENGTH`): JSON with the sample rate, unless the file can't be
opened; pieces of sound, float32 mono; an empty message; JSON with how it ended. Without the last, the decoder has not
survived the file.
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
import sys
import threading
from contextlib import suppress
from typing import Any, BinaryIO

from stt.errors import AudioError
from stt.server import decoding

REQUEST = struct.Struct("<d")  # the most seconds that may be decoded
LENGTH = struct.Struct("<I")
MEMORY_BYTES = 512 << 20  # of a child; ten hours of mp4 with its index need 60 MB
STALL_SECONDS = 30.0  # for one piece of sound, about a second of it
NICENESS = 10  # the recognizer's threads go first; a tenth of the share of a thread at 0


def main() -> None:
    """Have a child ready for each file to come, until the service has ended."""
    control = socket.socket(fileno=0)
    for ignored in (signal.SIGINT, signal.SIGTERM):  # what is being decoded is finished; the service says when to end
        signal.signal(ignored, signal.SIG_IGN)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # nobody waits for the children
    os.nice(NICENESS)
    gc.collect()
    gc.freeze()
    while True:
        reader, writer = os.pipe()
        if os.fork() == 0:
            os.close(reader)
            _serve(control, writer)
        os.close(writer)
        has_taken_one = os.read(reader, 1)
        os.close(reader)
        if not has_taken_one and _is_over(control):
            return


def _is_over(control: socket.socket) -> bool:
    poll = select.poll()
    poll.register(control, select.POLLIN)
    return any(event & (select.POLLHUP | select.POLLERR) for _, event in poll.poll(0))


def _serve(control: socket.socket, taken: int) -> None:
    """The life of one child: wait for a file, say so, decode it, end."""
    resource.setrlimit(resource.RLIMIT_DATA, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))  # it has nothing to write but its answer
    request, descriptors, _, _ = socket.recv_fds(control, REQUEST.size, 2)
    control.close()
    if not request:
        os._exit(0)
    with suppress(BrokenPipeError):
        os.write(taken, b"1")
    os.close(taken)
    file, answers = descriptors
    (max_seconds,) = REQUEST.unpack(request)
    connection = socket.socket(fileno=answers)
    threading.Thread(target=_end_with, args=(connection,), daemon=True).start()
    status = 1
    try:
        with open(file, "rb") as source:
            _answer(source, max_seconds, connection)
        status = 0
    except BrokenPipeError:
        pass
    finally:
        os._exit(status)


def _end_with(connection: socket.socket) -> None:
    """End this process once nobody waits for its answer any more, whatever it is at."""
    connection.recv(1)
    os._exit(1)


def _answer(source: BinaryIO, max_seconds: float, connection: socket.socket) -> None:
    def send(message: bytes | memoryview) -> None:
        connection.sendall(LENGTH.pack(len(message)))
        connection.sendall(message)

    def send_json(value: dict[str, Any]) -> None:
        send(json.dumps(value).encode())

    try:
        signal.setitimer(signal.ITIMER_REAL, STALL_SECONDS)  # at its end the kernel ends this process
        track = decoding.opened(source, max_seconds=max_seconds)
        send_json({"rate": track.rate})
        for piece in track.pieces:
            signal.setitimer(signal.ITIMER_REAL, 0)  # the service takes as long as it wants
            if len(piece):
                send(memoryview(piece).cast("B"))
            signal.setitimer(signal.ITIMER_REAL, STALL_SECONDS)
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(b"")
        send_json({"truncated": track.is_truncated})
    except AudioError as exc:
        signal.setitimer(signal.ITIMER_REAL, 0)
        send(b"")
        send_json({"error": type(exc).__name__, "message": exc.message})


if __name__ == "__main__":
    sys.exit(main())
