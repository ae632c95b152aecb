"""How a session ends that no real socket shows in a test's time: a client that does not read, a device that is slow."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import pytest
from starlette.types import Message
from starlette.websockets import WebSocket

from parakeet_stt.server.live import connection, stream
from parakeet_stt.server.live.connection import FAILED, NORMAL, SLOW_READER, CloseReason, run_connection
from parakeet_stt.server.live.stream import LiveOptions, LiveStream
from parakeet_stt.server.live.ws import Hello, WsProtocol
from parakeet_stt.streaming.chunk_decoder import ChunkRules
from tests.conftest import Sample
from tests.parts import SERVED, Front
from tests.server.live.test_stream import BreakingDetector, Broken, broken
from tests.sockets import END, every, frames, pcm

PATIENCE = 15.0  # seconds; less than `READ_SECONDS`, and than a client may be idle
FINAL_SECONDS, STEP_SECONDS = 1.2, 0.4  # without progress before a session ends, and in which a slow device decodes
WITH_PARTIALS, FINALS_ONLY = ChunkRules(), ChunkRules(length=None)
DISCONNECT: Message = {"type": "websocket.disconnect", "code": 1005}


@pytest.fixture
def detector() -> BreakingDetector:
    return BreakingDetector()


@pytest.fixture
def serving(detector: BreakingDetector) -> Iterator[Broken]:
    with broken({}, detector=detector) as made:
        yield made


class Wire:
    """What a server gives an app for a socket. reads: how many messages are taken before nothing is.

    breaks: whether the client has disconnected then.
    """

    def __init__(self, messages: Iterable[bytes | str | Message], reads: int, *, breaks: bool = False) -> None:
        self._messages = iter(messages)
        self._left = reads
        self._breaks = breaks
        self.sent: list[Message] = []

    async def receive(self) -> Message:
        if self.sent and self.sent[0]["type"] == "websocket.accept":
            for data in self._messages:
                await asyncio.sleep(0.005)
                if not isinstance(data, bytes | str):
                    return data
                return {"type": "websocket.receive", "text" if isinstance(data, str) else "bytes": data}
            await asyncio.Event().wait()
        return {"type": "websocket.connect"}

    async def send(self, message: Message) -> None:
        if message["type"] == "websocket.send":
            self._left -= 1
            if self._left < 0:
                if self._breaks:
                    raise OSError("broken pipe")
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

    assert serving.run(connection_over(serving, wire))[0] is SLOW_READER
    assert wire.sent[-1]["code"] == 1008
    assert len(received_by(wire)) == 2


def test_a_session_whose_detector_fails_is_closed_with_a_code_and_the_reason(
    serving: Broken, detector: BreakingDetector
) -> None:
    detector.fails = True
    wire = Wire(list(frames(bytes(32_000), every(100))), reads=1000)
    assert serving.run(connection_over(serving, wire))[0] is FAILED
    assert (wire.sent[-1]["code"], wire.sent[-1]["reason"]) == (1011, "the session failed")


@pytest.fixture
def detecting() -> Iterator[Broken]:
    """A front that detects speech itself: it reads audio while the device decodes nothing."""
    with broken({}) as made:
        yield made


@pytest.fixture(scope="module")
def sentences(samples: dict[str, Sample]) -> bytes:
    return pcm(samples["two-minutes"].audio().samples)[: 24 * 32_000]


@pytest.fixture(scope="module")
def expected(sentences: bytes) -> list[dict[str, Any]]:
    """The finals of the sentences from a device that is not slow."""
    wire = Wire([*frames(sentences, every(100)), END], reads=1000)
    with broken({}) as made:
        made.run(connection_over(made, wire, FINALS_ONLY))
    return finals_in(wire)


@dataclass
class Slow:
    """A device that decodes nothing until the last message of the client is read, and is slow then.

    stops_after: steps, before it does nothing any more until `is_over` is set.
    """

    stops_after: int = 1000
    has_ended: threading.Event = field(default_factory=threading.Event)
    has_stopped: threading.Event = field(default_factory=threading.Event)
    is_over: threading.Event = field(default_factory=threading.Event)
    steps: int = 0

    def pace(self) -> None:
        """Called before each step."""
        self.has_ended.wait(PATIENCE)
        if self.steps == self.stops_after:
            self.has_stopped.set()
            self.is_over.wait(PATIENCE)
        time.sleep(STEP_SECONDS)
        self.steps += 1

    def messages(self, sound: bytes, end: str | Message = END) -> Iterator[bytes | str | Message]:
        """Of the client."""
        yield from frames(sound, every(100))
        self.has_ended.set()
        yield end


@pytest.mark.parametrize("end", [END, DISCONNECT], ids=["the client says so", "the client disconnects"])
def test_after_the_end_a_slow_device_has_its_time_for_each_answer_and_no_final_is_lost(
    detecting: Broken, sentences: bytes, expected: list[dict[str, Any]], end: str | Message
) -> None:
    slow = Slow()
    detecting.plan.pace = slow.pace
    wire = Wire(slow.messages(sentences, end), reads=1000)
    reason, words = detecting.run(connection_over(detecting, wire, FINALS_ONLY, FINAL_SECONDS))
    assert finals_in(wire) == expected
    assert words == words_in(expected)
    assert slow.steps * STEP_SECONDS > 1.5 * FINAL_SECONDS
    assert reason is NORMAL if end is END else reason.by_client


def test_what_a_client_sent_before_it_disconnected_is_read_as_fast_as_a_slow_device_decodes(
    detecting: Broken, sentences: bytes, expected: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(stream, "MAX_BACKLOG_SECONDS", 0)
    slow = Slow()
    slow.has_ended.set()
    detecting.plan.pace = slow.pace
    wire = Wire(slow.messages(sentences, DISCONNECT), reads=0, breaks=True)
    reason, words = detecting.run(connection_over(detecting, wire, FINALS_ONLY, FINAL_SECONDS))
    assert words == words_in(expected)
    assert reason.by_client
    assert slow.steps * STEP_SECONDS > 1.5 * FINAL_SECONDS


def test_a_device_that_does_nothing_ends_the_session_in_the_time_after_its_last_answer(
    detecting: Broken, sentences: bytes
) -> None:
    slow = Slow(stops_after=2)
    detecting.plan.pace = slow.pace
    wire = Wire(slow.messages(sentences), reads=1000)

    async def main() -> tuple[CloseReason, float]:
        running = asyncio.create_task(connection_over(detecting, wire, FINALS_ONLY, FINAL_SECONDS))
        await asyncio.to_thread(slow.has_stopped.wait, PATIENCE)  # the step before was answered just now
        began = time.monotonic()
        return (await running)[0], time.monotonic() - began

    try:
        reason, seconds = detecting.run(main())
    finally:
        slow.is_over.set()
    assert reason is FAILED
    assert wire.sent[-1]["code"] == 1011
    assert len(finals_in(wire)) == slow.stops_after
    assert FINAL_SECONDS - 0.1 < seconds < 2 * FINAL_SECONDS


def test_while_the_device_is_started_again_after_the_end_no_time_counts(
    detecting: Broken, sentences: bytes, expected: list[dict[str, Any]]
) -> None:
    slow = Slow()
    plan, detecting.load_seconds = detecting.plan, FINAL_SECONDS + STEP_SECONDS
    plan.pace, plan.breaks = slow.pace, {plan.steps + 1: SystemExit("killed")}
    wire = Wire(slow.messages(sentences), reads=1000)
    assert detecting.run(connection_over(detecting, wire, FINALS_ONLY, FINAL_SECONDS))[0] is NORMAL
    assert finals_in(wire) == expected
    assert detecting.restarts == 1


def test_shutdown_does_not_wait_for_a_slow_device_beyond_its_own_time(
    detecting: Broken, sentences: bytes, expected: list[dict[str, Any]]
) -> None:
    slow = Slow()
    detecting.plan.pace = slow.pace
    wire = Wire(slow.messages(sentences), reads=1000)

    async def main() -> float:
        running = asyncio.create_task(session_over(detecting.front, wire, Hello()))
        await asyncio.to_thread(slow.has_ended.wait, PATIENCE)
        began = time.monotonic()
        await detecting.front.components.drain.finish(FINAL_SECONDS)
        await running
        return time.monotonic() - began

    assert detecting.run(main()) < 2 * FINAL_SECONDS
    assert wire.sent[-1]["code"] == 1001
    assert 0 < len(finals_in(wire)) < len(expected)


async def connection_over(
    serving: Broken, wire: Wire, rules: ChunkRules = WITH_PARTIALS, seconds: float = 5
) -> tuple[CloseReason, int]:
    """Run one session of `/ws` to its end. seconds: without progress, for its finals."""
    socket = WebSocket({"type": "websocket", "headers": []}, wire.receive, wire.send)
    await socket.accept()
    components = serving.front.components
    async with components.sessions.open_stream(LiveOptions(chunk_rules=rules)) as live:
        protocol = WsProtocol(live, Hello(partials=rules is WITH_PARTIALS), onset=0.6, model=SERVED)
        async with asyncio.timeout(PATIENCE):
            return await run_connection(socket, protocol, components.drain, idle_seconds=60, final_seconds=seconds)


async def session_over(front: Front, wire: Wire, hello: Hello) -> None:
    """One session as the service runs it, from its admission to its line in the log."""
    scope = {"type": "websocket", "path": "/ws", "query_string": b"", "headers": [], "server": ("test", 80)}

    def make(stream: LiveStream) -> WsProtocol:
        return WsProtocol(stream, hello, onset=0.6, model=SERVED)

    await front.components.sessions.run(WebSocket(scope, wire.receive, wire.send), hello.to_options(0.6), make)


def received_by(wire: Wire) -> list[dict[str, Any]]:
    return [json.loads(message["text"]) for message in wire.sent if message["type"] == "websocket.send"]


def finals_in(wire: Wire) -> list[dict[str, Any]]:
    return [one for one in received_by(wire) if one["type"] == "final"]


def words_in(finals: list[dict[str, Any]]) -> int:
    return sum(len(one["text"].split()) for one in finals)
