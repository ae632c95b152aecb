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
from parakeet_stt.server.live.connection import FAILED, SLOW_READER, CloseReason, run_connection
from parakeet_stt.server.live.stream import LiveOptions
from parakeet_stt.server.live.ws import Hello, WsProtocol
from parakeet_stt.streaming.chunk_decoder import ChunkRules
from tests.conftest import Sample
from tests.parts import SERVED
from tests.server.live.test_stream import BreakingDetector, Broken, broken
from tests.sockets import every, frames, pcm

PATIENCE = 15.0  # seconds; less than `READ_SECONDS`, and than a client may be idle


@pytest.fixture
def detector() -> BreakingDetector:
    return BreakingDetector()


@pytest.fixture
def serving(detector: BreakingDetector) -> Iterator[Broken]:
    with broken({}, detector=detector) as made:
        yield made


class Wire:
    """What a server gives an app for a socket. reads: how many messages are taken before nothing is."""

    def __init__(self, messages: list[bytes | str], reads: int) -> None:
        self._messages = iter(messages)
        self._left = reads
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.sent and self.sent[0]["type"] == "websocket.accept":
            for data in self._messages:
                await asyncio.sleep(0.005)
                return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}
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

    assert serving.run(connection_over(serving, wire)) is SLOW_READER
    assert wire.sent[-1]["code"] == 1008
    assert len(received_by(wire)) == 2


def test_a_session_whose_detector_fails_is_closed_with_a_code_and_the_reason(
    serving: Broken, detector: BreakingDetector
) -> None:
    detector.fails = True
    wire = Wire(list(frames(bytes(32_000), every(100))), reads=1000)
    assert serving.run(connection_over(serving, wire)) is FAILED
    assert (wire.sent[-1]["code"], wire.sent[-1]["reason"]) == (1011, "the session failed")


async def connection_over(serving: Broken, wire: Wire) -> CloseReason:
    """Run one session of `/ws` with partials to its end."""
    socket = WebSocket({"type": "websocket", "headers": []}, wire.receive, wire.send)
    await socket.accept()
    components = serving.front.components
    async with components.sessions.open_stream(LiveOptions(chunk_rules=ChunkRules())) as stream:
        protocol = WsProtocol(stream, Hello(partials=True), onset=0.6, model=SERVED)
        async with asyncio.timeout(PATIENCE):
            reason, _ = await run_connection(socket, protocol, components.drain, idle_seconds=60, final_seconds=5)
        return reason


def received_by(wire: Wire) -> list[dict[str, Any]]:
    return [json.loads(message["text"]) for message in wire.sent if message["type"] == "websocket.send"]
