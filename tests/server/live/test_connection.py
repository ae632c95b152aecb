"""A socket whose client does not read, which no real one shows in a test's time: the kernel takes megabytes first."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from parakeet_stt.server.live import connection
from parakeet_stt.server.live.connection import SLOW_READER, CloseReason, run_connection
from parakeet_stt.server.live.stream import LiveOptions
from parakeet_stt.server.live.ws import Hello, WsProtocol
from parakeet_stt.streaming.chunk_decoder import ChunkRules
from tests.conftest import Sample
from tests.server.live.test_stream import Broken
from tests.sockets import every, frames, pcm


@pytest.fixture
def serving() -> Iterator[Broken]:
    made = Broken({})
    yield made
    made.components.close()


class Wire:
    """What a server gives an app for a socket. reads: how many messages are taken before nothing is."""

    def __init__(self, messages: list[bytes], reads: int) -> None:
        self._messages = iter(messages)
        self._left = reads
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.sent and self.sent[0]["type"] == "websocket.accept":
            for data in self._messages:
                await asyncio.sleep(0.005)
                return {"type": "websocket.receive", "bytes": data}
            await asyncio.Event().wait()
        return {"type": "websocket.connect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self._left -= 1
            if self._left < 0:
                await asyncio.Event().wait()
        self.sent.append(message)


@pytest.mark.parametrize("limits", [{"READ_SECONDS": 0.3}, {"MAX_UNREAD": 3}], ids=["time", "messages"])
def test_who_does_not_read_is_dropped_with_a_code(
    serving: Broken, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch, limits: dict[str, Any]
) -> None:
    for name, value in limits.items():
        monkeypatch.setattr(connection, name, value)
    sound = pcm(samples["two-minutes"].audio().samples)[: 20 * 32_000]
    wire = Wire(list(frames(sound, every(100))), reads=2)

    async def main() -> CloseReason:
        socket = WebSocket({"type": "websocket", "headers": []}, wire.receive, wire.send)
        await socket.accept()
        protocol = WsProtocol(
            serving.components.sessions.open_stream(LiveOptions(chunk_rules=ChunkRules())),
            Hello(partials=True),
            onset=0.6,
            languages=["en"],
        )
        return await run_connection(socket, protocol, serving.components.drain, idle_seconds=60, final_seconds=5)

    assert asyncio.run(asyncio.wait_for(main(), 60)) is SLOW_READER
    assert wire.sent[-1]["code"] == 1008
    received = [json.loads(message["text"]) for message in wire.sent if message["type"] == "websocket.send"]
    assert len(received) == 2
