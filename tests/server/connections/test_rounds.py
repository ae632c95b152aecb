"""Sockets that keep sending are read together, and nothing that they sent is lost at their end."""

from __future__ import annotations

import asyncio
import socket
import struct
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any, Literal, cast

import pytest
import uvicorn
import uvloop
from websockets.asyncio.client import connect

from parakeet_stt.server.connections.rounds import MAX_SECONDS, SECONDS_PER_SOCKET, Rounds
from parakeet_stt.server.connections.sockets import SocketProtocol

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

Leave = Literal["close", "hang up", "reset"]  # the connection

SOCKETS, MESSAGES, SECONDS = 40, 50, 0.02


class Clock:
    """An event loop of which only the timer is used. delay: of the timer that is set."""

    def __init__(self) -> None:
        self.delay: float | None = None
        self.failures: list[object] = []
        self._callback: Callable[[], None] = lambda: None

    def call_later(self, delay: float, callback: Callable[[], None]) -> None:
        assert self.delay is None
        self.delay, self._callback = delay, callback

    def call_exception_handler(self, context: dict[str, object]) -> None:
        self.failures.append(context["exception"])

    def ring(self) -> None:
        self.delay = None
        self._callback()


class Speaker:
    """A socket. is_speaking: whether something has come by the next round. failure: of reading it."""

    def __init__(self) -> None:
        self.is_speaking = True
        self.reads = 0
        self.failure: Exception | None = None
        self.is_aborted = False

    def abort(self) -> None:
        self.is_aborted = True

    def read_now(self) -> bool:
        self.reads += 1
        if self.failure:
            raise self.failure
        return self.is_speaking


def test_the_more_sockets_send_the_longer_lasts_a_round_up_to_a_window_of_the_detector() -> None:
    clock = Clock()
    rounds = Rounds(cast(asyncio.AbstractEventLoop, clock))
    delays = []
    for count in (4, 12, 84):
        for _ in range(count):
            rounds.join(Speaker())
        clock.ring()
        delays.append(clock.delay)
    assert delays == [4 * SECONDS_PER_SOCKET, 16 * SECONDS_PER_SOCKET, MAX_SECONDS]


def test_a_socket_from_which_nothing_has_come_is_left_to_the_event_loop() -> None:
    clock = Clock()
    rounds = Rounds(cast(asyncio.AbstractEventLoop, clock))
    speaking, silent, gone = Speaker(), Speaker(), Speaker()
    for one in (speaking, silent, gone):
        rounds.join(one)
    rounds.leave(gone)
    silent.is_speaking = False
    for _ in range(3):
        clock.ring()
    assert [one.reads for one in (speaking, silent, gone)] == [3, 1, 0]
    speaking.is_speaking = False
    clock.ring()
    assert clock.delay is None


def test_a_socket_that_can_not_be_read_ends_and_the_others_are_read_all_the_same() -> None:
    clock = Clock()
    rounds = Rounds(cast(asyncio.AbstractEventLoop, clock))
    broken, well = Speaker(), Speaker()
    for one in (broken, well):
        rounds.join(one)
    broken.failure = ValueError("broken")
    for _ in range(2):
        clock.ring()
    assert clock.failures == [broken.failure]
    assert broken.is_aborted
    assert not well.is_aborted
    assert [broken.reads, well.reads] == [1, 2]


class Heard:
    """An app: the messages of each socket by its number, and in which milliseconds they came. It talks all the time."""

    def __init__(self) -> None:
        self.messages: defaultdict[int, list[int]] = defaultdict(list)
        self.codes: dict[int, int] = {}
        self.moments: set[float] = set()
        self.is_over = threading.Event()  # all have left

    async def __call__(self, scope: Scope, receive: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        assert scope["type"] == "websocket"
        number, loop = int(scope["path"][1:]), asyncio.get_running_loop()
        await receive()
        await send({"type": "websocket.accept", "subprotocol": None, "headers": []})
        talking = asyncio.create_task(self._talk(send))
        while (message := cast(dict[str, Any], await receive()))["type"] == "websocket.receive":
            self.moments.add(loop.time())  # uvloop counts milliseconds
            self.messages[number].append(int(message["bytes"][:4]))
        talking.cancel()
        self.codes[number] = message["code"]
        if len(self.codes) == SOCKETS:
            self.is_over.set()

    @staticmethod
    async def _talk(send: ASGISendCallable) -> None:
        with suppress(OSError):  # uvicorn's, once the client has left
            while True:
                await send({"type": "websocket.send", "bytes": b"and?", "text": None})
                await asyncio.sleep(0.005)


@contextmanager
def serving(app: Heard) -> Iterator[str]:
    """A server in a thread of its own, on the loop of the service."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        config = uvicorn.Config(app, ws=SocketProtocol, lifespan="off", log_config=None)
        server = uvicorn.Server(config)
        thread = threading.Thread(target=lambda: uvloop.run(server.serve([listening])))
        thread.start()
        try:
            yield f"ws://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join(20)
            assert not thread.is_alive()


async def speak(url: str, number: int, leave: Leave) -> None:
    """Send numbered frames in real time, and leave right after the last."""
    await asyncio.sleep(SECONDS * number / SOCKETS)
    async with connect(f"{url}/{number}", proxy=None, compression=None, max_queue=None) as client:
        began = time.monotonic()
        for count in range(MESSAGES):
            await asyncio.sleep(max(0.0, began + count * SECONDS - time.monotonic()))
            await client.send(f"{count:04}".encode() + bytes(640))
        if leave == "reset":
            own: socket.socket = client.transport.get_extra_info("socket")
            own.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        if leave != "close":
            client.transport.abort()


@pytest.mark.parametrize("leave", ["close", "hang up", "reset"])
def test_frames_of_many_sockets_are_read_together_each_in_order_and_to_the_last(leave: Leave) -> None:
    app = Heard()

    async def talk(url: str) -> None:
        await asyncio.gather(*(speak(url, number, leave) for number in range(SOCKETS)))

    began = time.monotonic()
    with serving(app) as url:
        asyncio.run(asyncio.wait_for(talk(url), 60))
        assert app.is_over.wait(20)
    elapsed = time.monotonic() - began
    assert dict(app.messages) == {number: list(range(MESSAGES)) for number in range(SOCKETS)}
    assert app.codes == dict.fromkeys(range(SOCKETS), 1000 if leave == "close" else 1005)
    assert len(app.moments) < 3 * elapsed / MAX_SECONDS  # a few in each round
