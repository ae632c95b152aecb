"""Knows how a WebSocket carries a live session: back-pressure, slow readers, idle ones, and how each of them ends.

Does not know what the messages mean: that is the protocol's, `live_protocol.py` or `realtime.py`.
"""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from parakeet_stt.errors import RequestError
from parakeet_stt.server.http.drain import Occupancy
from parakeet_stt.server.live.stream import Live
from parakeet_stt.streaming.session import Event, Final

logger = logging.getLogger(__name__)
Outgoing = Mapping[str, Any]
MOST_UNREAD = 1000  # messages that wait for a slow reader
READ_SECONDS = 20.0  # in which a reader must take something
CLOSE_SECONDS = 10.0  # for a slow reader to be told why


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a socket is closed. code: RFC 6455's, or one of 4000 to 4999, which are ours."""

    code: int
    reason: str


NORMAL = Ending(1000, "")
GOING_AWAY = Ending(1001, "the server is about to end")
SLOW_READER = Ending(1008, "what is sent is not read")
BROKEN = Ending(1011, "the session failed")
IDLE = Ending(4408, "nothing came for too long")
GONE = Ending(1005, "the client has left")


class LiveProtocol(Protocol):
    """What the messages of a socket mean."""

    live: Live

    def opening(self) -> Sequence[Outgoing]:
        """What is said first."""
        ...

    async def handle(self, message: str | bytes) -> Sequence[Outgoing] | None:
        """Do what a message asks for; the answer, or None if it was the last. Raises RequestError."""
        ...

    def told(self, event: Event) -> Sequence[Outgoing]:
        """An event in the protocol's words."""
        ...

    def refused(self, error: RequestError) -> Outgoing:
        """An error of the client's, after which the session goes on."""
        ...


async def converse(
    websocket: WebSocket, protocol: LiveProtocol, occupancy: Occupancy, *, idle_seconds: float, patience: float
) -> Ending:
    """Carry a session on an accepted socket to its end, and close it. patience: seconds for the finals at the end."""
    writer = _Writer(websocket)
    for message in protocol.opening():
        writer.send(message)
    reading = asyncio.create_task(_read(websocket, protocol, writer, occupancy, idle_seconds))
    telling = asyncio.create_task(_tell(protocol, writer))
    try:
        await asyncio.wait({reading, telling, writer.writing}, return_when=asyncio.FIRST_COMPLETED)
        ending = await _ended(reading, telling, writer, protocol, patience)
    finally:
        for task in (reading, telling, writer.writing):
            task.cancel()
        await asyncio.wait({reading, telling, writer.writing})
    if websocket.application_state is WebSocketState.CONNECTED and ending is not GONE:
        with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await websocket.close(ending.code, ending.reason)
    return ending


async def _ended(
    reading: asyncio.Task[Ending],
    telling: asyncio.Task[int],
    writer: _Writer,
    protocol: LiveProtocol,
    patience: float,
) -> Ending:
    if writer.writing.done():
        if not writer.is_broken:
            return SLOW_READER
        await asyncio.wait({reading}, timeout=patience)  # what the client had sent before it left is still to be heard
        reading.cancel()
        await asyncio.wait({reading})
        await protocol.live.finish()
        return await _left(telling, patience)
    if not reading.done() or reading.exception():
        failures = [task.exception() for task in (telling, reading) if task.done()]
        logger.error("a live session failed", exc_info=next(filter(None, failures), None))
        return BROKEN
    ending = reading.result()
    await protocol.live.finish()
    if ending is GONE:
        return await _left(telling, patience)
    await asyncio.wait({telling, writer.writing}, timeout=patience, return_when=asyncio.FIRST_COMPLETED)
    if writer.is_broken:
        return await _left(telling, patience)
    writer.send(None)
    await asyncio.wait({writer.writing}, timeout=READ_SECONDS)
    if not telling.done() or telling.exception():
        logger.error("a live session had not all its finals within %.0f s", patience)
        return BROKEN
    return ending if writer.writing.done() else SLOW_READER


async def _left(telling: asyncio.Task[int], patience: float) -> Ending:
    """Nobody listens any more: what was said is recognized to its end all the same, and noted."""
    await asyncio.wait({telling}, timeout=patience)
    if telling.done() and not telling.exception():
        logger.info("the client left; %d words were still found", telling.result())
    return GONE


async def _read(
    websocket: WebSocket, protocol: LiveProtocol, writer: _Writer, occupancy: Occupancy, idle_seconds: float
) -> Ending:
    ending = asyncio.create_task(occupancy.ending.wait())
    try:
        while True:
            if ending.done():
                return GOING_AWAY
            receiving = asyncio.create_task(_received(websocket))
            try:
                await asyncio.wait({receiving, ending}, timeout=idle_seconds, return_when=asyncio.FIRST_COMPLETED)
            finally:
                is_idle = receiving.cancel()
            if is_idle:
                await asyncio.wait({receiving})
                return GOING_AWAY if ending.done() else IDLE
            message = receiving.result()
            if message is None:
                return GONE
            try:
                answer = await protocol.handle(message)
            except RequestError as exc:
                answer = [protocol.refused(exc)]
            if answer is None:
                return NORMAL
            for one in answer:
                writer.send(one)
    finally:
        ending.cancel()


async def _received(websocket: WebSocket) -> str | bytes | None:
    """The next message; None once the client has left."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        return None
    data: bytes | None = message.get("bytes")
    text: str | None = message.get("text")
    return data if data is not None else text or ""


async def _tell(protocol: LiveProtocol, writer: _Writer) -> int:
    """Send what happens; the number of words of all finals."""
    words = 0
    async for event in protocol.live.events():
        for message in protocol.told(event):
            writer.send(message)
        if isinstance(event, Final):
            words += len(event.words)
            logger.debug("final: %s", " ".join(word.text for word in event.words))
    return words


class _Writer:
    """Sends messages in order, as JSON, and ends when its reader takes none for too long, or has left."""

    def __init__(self, websocket: WebSocket) -> None:
        self._websocket = websocket
        self._messages: asyncio.Queue[Outgoing | None] = asyncio.Queue()
        self.is_broken = False  # whether the reader has left
        self.writing = asyncio.create_task(self._write())

    def send(self, message: Outgoing | None) -> None:
        """Have it sent, if anybody is there. None: end, once all before are sent."""
        if self.is_broken:
            return
        self._messages.put_nowait(message)
        if self._messages.qsize() > MOST_UNREAD:
            self.writing.cancel()

    async def _write(self) -> None:
        while (message := await self._messages.get()) is not None:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await self._websocket.send_text(json.dumps(message, separators=(",", ":")))
            except TimeoutError:
                return
            except Exception:  # whatever the server raises when nobody is there
                self.is_broken = True
                return


def log_session(path: str, ending: Ending, seconds: float, heard: float) -> None:
    """Note that a session is over."""
    logger.info("WS %s %d %.0f s, %.1f s of sound", path, ending.code, seconds, heard)
