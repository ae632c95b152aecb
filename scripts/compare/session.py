"""One session on a socket of a running service, and the audio that is sent on it."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any

from websockets.exceptions import ConnectionClosed
from websockets.sync.client import connect
from websockets.typing import Subprotocol

from scripts.compare.odd_files import Sound, encode

Message = dict[str, Any]
WAIT_SECONDS = 60.0
POLL_SECONDS = 0.02  # asked more often, the service would be slowed down by that
SYNC = "sync"


@dataclass(frozen=True)
class Service:
    """Where it is, and how to see whether it is idle. is_idle: whether no audio waits. key: makes one for a session."""

    address: str
    is_idle: Callable[[], bool]
    key: Callable[[Mapping[str, Any]], str]


class Line:
    """One session on a socket, and all messages that were received on it."""

    def __init__(
        self, service: Service, path: str, headers: Mapping[str, str] | None = None, subprotocols: Sequence[str] = ()
    ) -> None:
        self._service = service
        self.received: list[Message] = []
        self.socket = connect(
            f"ws://{service.address}{path}", additional_headers=headers, max_queue=None, proxy=None, max_size=None,
            subprotocols=[Subprotocol(one) for one in subprotocols] or None, compression=None,
        )  # fmt: skip

    def __enter__(self) -> Line:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.socket.close()

    def say(self, message: str | bytes | Mapping[str, Any]) -> None:
        """Send a message; a mapping as JSON."""
        self.socket.send(json.dumps(message) if isinstance(message, Mapping) else message)

    def receive(self, count: int = 1) -> None:
        """Wait for so many messages."""
        for _ in range(count):
            self.received.append(json.loads(self.socket.recv(timeout=WAIT_SECONDS)))

    def settle(self) -> None:
        """Wait until all that was sent is received and recognized, and what follows from it has come."""
        self._echo()
        missing, deadline = 1, time.monotonic() + WAIT_SECONDS
        while missing and time.monotonic() < deadline:
            if self._service.is_idle():
                missing -= 1
            else:
                missing = 2  # the next step is asked for a moment after the last
                time.sleep(POLL_SECONDS)
        if missing:
            raise TimeoutError("the service does not come to rest")

    def finish(self) -> None:
        """Settle, and wait until all that was committed on /v1/realtime is transcribed."""
        self.settle()
        self._echo()
        endings = [message["type"].rpartition(".")[2] for message in self.received]
        self.receive(endings.count("committed") - endings.count("completed") - endings.count("failed"))

    def _echo(self) -> None:
        self.say({"type": SYNC, "event_id": SYNC})
        while True:
            message = json.loads(self.socket.recv(timeout=WAIT_SECONDS))
            if message["type"] == "error" and message["error"].get("event_id", SYNC) == SYNC:
                return
            self.received.append(message)

    def rest(self) -> None:
        """Wait for all messages up to the close."""
        try:
            while True:
                self.receive()
        except ConnectionClosed:
            return


def frames(data: bytes, size: int) -> Iterator[bytes]:
    """The bytes in parts of this length."""
    for at in range(0, len(data), size):
        yield data[at : at + size]


def bare(sound: Sound, encoding: str, rate: int) -> bytes:
    """The sound without any container. encoding: as `/ws` names it."""
    container = {"pcm_s16le": "s16le", "pcm_f32le": "f32le", "mulaw": "mulaw", "alaw": "alaw"}[encoding]
    codec = encoding if encoding.startswith("pcm_") else f"pcm_{encoding}"
    return encode(sound, container, codec, rate)


# /ws
