"""How tests speak through a socket: sound in frames, and what comes back."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection

from parakeet_stt.audio import Samples
from tests.conftest import Server

Message = dict[str, Any]
END = json.dumps({"type": "end"})


def pcm(samples: Samples) -> bytes:
    """As the original protocol has it: int16, little-endian."""
    return (samples * 32767).astype("<i2").tobytes()


def frames(data: bytes, sizes: Iterable[int]) -> Iterator[bytes]:
    """The bytes in frames of these lengths."""
    at = 0
    for size in sizes:
        yield data[at : at + size]
        at += size
        if at >= len(data):
            return


def every(milliseconds: int) -> Iterator[int]:
    """Lengths of frames in bytes, for ever."""
    while True:
        yield 32 * milliseconds


def opened(server: Server, query: str = "", path: str = "/ws", **options: Any) -> ClientConnection:
    address = f"{server.url.replace('http', 'ws')}{path}{query}"
    return connect(address, proxy=None, compression=None, max_size=None, **options)


@contextmanager
def log_until_the_client_disconnected(server: Server) -> Iterator[list[str]]:
    """A client connects and leaves within the context; the list has what was logged meanwhile, at the level debug."""
    before, said = len(server.log.read_text()), list[str]()
    yield said
    deadline = time.monotonic() + 20
    while "the client disconnected" not in (log := server.log.read_text()[before:]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    said.append(log)


def answers(socket: Connection) -> list[Message]:
    """All that is said until the server closes."""
    received: list[Message] = []
    try:
        while True:
            received.append(json.loads(socket.recv(timeout=60)))
    except ConnectionClosed:
        return received
