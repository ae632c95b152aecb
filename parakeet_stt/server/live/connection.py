"""Runs a live session on a WebSocket: back-pressure, slow readers, idle clients, and how each connection is closed.

What the messages mean is the protocol's: ws.py or realtime.py.
"""

from __future__ import annotations

import asyncio
import json
import logging
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Protocol

from starlette.websockets import WebSocket, WebSocketDisconnect, WebSocketState

from parakeet_stt.errors import RequestError
from parakeet_stt.server.http.drain import Drain
from parakeet_stt.server.live.stream import LiveStream
from parakeet_stt.streaming.chunk_decoder import Final
from parakeet_stt.streaming.turns import Event

logger = logging.getLogger(__name__)
Outgoing = Mapping[str, Any]
MAX_UNREAD = 1000  # messages that wait for a slow reader
READ_SECONDS = 20.0  # in which a reader must take a message
CLOSE_SECONDS = 10.0  # for a slow reader to receive the reason


@dataclass(frozen=True, slots=True)
class CloseReason:
    """Why a socket is closed. code: RFC 6455's, or one of 4000 to 4999, which are ours or the client's."""

    code: int
    reason: str
    by_client: bool = False


NORMAL = CloseReason(1000, "")
GOING_AWAY = CloseReason(1001, "the server is about to end")
SLOW_READER = CloseReason(1008, "what is sent is not read")
FAILED = CloseReason(1011, "the session failed")
IDLE = CloseReason(4408, "nothing came for too long")
DISCONNECTED = CloseReason(1006, "the client disconnected", by_client=True)  # without a close frame


class LiveProtocol(Protocol):
    """What the messages of a socket mean."""

    stream: LiveStream
    session_id: str  # as the client knows it

    def opening_messages(self) -> Sequence[Outgoing]:
        """The first messages to the client."""
        ...

    async def handle_message(self, message: str | bytes) -> Sequence[Outgoing] | None:
        """Do what a message asks for; returns the answer, or None after the last message. Raises RequestError."""
        ...

    def render_event(self, event: Event) -> Sequence[Outgoing]:
        """An event as messages."""
        ...

    def render_error(self, error: RequestError) -> Outgoing:
        """An error of the client's, after which the session goes on."""
        ...


async def run_connection(
    websocket: WebSocket, protocol: LiveProtocol, drain: Drain, *, idle_seconds: float, final_seconds: float
) -> tuple[CloseReason, int]:
    """Run a session on an accepted socket to its end, and close it.

    final_seconds: how long the finals at the end wait for each answer of the device.
    Returns why it has ended, and the number of words of all finals.
    """
    writer = _Writer(websocket, protocol.session_id)
    for message in protocol.opening_messages():
        writer.send(message)
    reader = _Reader(websocket, protocol, writer, drain, idle_seconds)
    reading = reader.reading
    sending = asyncio.create_task(_send_events(protocol, writer))
    try:
        await asyncio.wait({reading, sending, writer.writing}, return_when=asyncio.FIRST_COMPLETED)
        reason = await _finish(reading, sending, writer, protocol, final_seconds)
    finally:
        tasks = {reading, reader.watching, sending, writer.writing}
        for task in tasks:
            task.cancel()
        await asyncio.wait(tasks)
    if websocket.application_state is WebSocketState.CONNECTED and not reason.by_client:
        with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
            async with asyncio.timeout(CLOSE_SECONDS):
                await websocket.close(reason.code, reason.reason)
    return reason, writer.words


async def _finish(
    reading: asyncio.Task[CloseReason],
    sending: asyncio.Task[None],
    writer: _Writer,
    protocol: LiveProtocol,
    final_seconds: float,
) -> CloseReason:
    """One of the tasks is done: deliver what is left, and find out the reason."""
    if writer.writing.done():
        if not writer.is_broken:
            return SLOW_READER
        await _wait_for_device({reading}, protocol.stream, final_seconds)  # messages of before the client disconnected
        reading.cancel()
        await asyncio.wait({reading})
        await protocol.stream.finish()
        await _wait_for_device({sending}, protocol.stream, final_seconds)
        has_read = not reading.cancelled() and not reading.exception()
        return reading.result() if has_read and reading.result().by_client else DISCONNECTED
    if not reading.done() or reading.exception():
        failures = [task.exception() for task in (sending, reading) if task.done()]
        logger.error("a live session failed", exc_info=next(filter(None, failures), None))
        return FAILED
    reason = reading.result()
    await protocol.stream.finish()
    if reason.by_client:  # what it sent is decoded to its end all the same
        await _wait_for_device({sending}, protocol.stream, final_seconds)
        return reason
    await _wait_for_device({sending, writer.writing}, protocol.stream, final_seconds)
    if writer.is_broken:
        await _wait_for_device({sending}, protocol.stream, final_seconds)
        return DISCONNECTED
    writer.send(None)
    await asyncio.wait({writer.writing}, timeout=READ_SECONDS)
    if not sending.done() or sending.exception():
        logger.error("a live session lacks finals: the device has given no answer for %.0f s", final_seconds)
        return FAILED
    return reason if writer.writing.done() else SLOW_READER


async def _wait_for_device(tasks: set[asyncio.Task[Any]], stream: LiveStream, seconds: float) -> None:
    """Wait until one of the tasks is done, or a device that runs has given no answer for so long."""
    began = time.monotonic()
    while (rest := seconds - min(stream.stalled_seconds, time.monotonic() - began)) > 0:
        if (await asyncio.wait(tasks, timeout=rest, return_when=asyncio.FIRST_COMPLETED))[0]:
            return


class _Reader:
    """Reads messages and answers them, until the client disconnects, is idle, or shutdown begins.

    One task reads, without another task or timer for each message.
    """

    def __init__(
        self, websocket: WebSocket, protocol: LiveProtocol, writer: _Writer, drain: Drain, idle_seconds: float
    ) -> None:
        self._websocket = websocket
        self._protocol = protocol
        self._writer = writer
        self._drain = drain
        self._idle_seconds = idle_seconds
        self._loop = asyncio.get_running_loop()
        self._received_at = self._loop.time()
        self._is_receiving = False
        self._stopped: CloseReason | None = None
        self.reading = asyncio.create_task(self._read())
        self.watching = asyncio.create_task(self._watch())

    async def _read(self) -> CloseReason:
        while True:
            if self._drain.started.is_set():
                return GOING_AWAY
            self._is_receiving = True
            try:
                message = await _receive(self._websocket)
            except asyncio.CancelledError:
                if self._stopped is None:
                    raise
                return self._stopped
            finally:
                self._is_receiving = False
                self._received_at = self._loop.time()
            if isinstance(message, CloseReason):
                return message
            try:
                answer = await self._protocol.handle_message(message)
            except RequestError as exc:
                answer = [self._protocol.render_error(exc)]
            if answer is None:
                return NORMAL
            for one in answer:
                self._writer.send(one)
            self._received_at = self._loop.time()

    async def _watch(self) -> None:
        """Stop the reading when it has received nothing for too long, or shutdown begins."""
        while not self.reading.done():
            if self._drain.started.is_set():
                self._stop(GOING_AWAY)  # or `_read` notices it after the message that it handles
                return
            rest = self._received_at + self._idle_seconds - self._loop.time()
            if rest <= 0 and self._stop(IDLE):
                return
            with suppress(TimeoutError):
                async with asyncio.timeout(rest if rest > 0 else self._idle_seconds):
                    await self._drain.started.wait()

    def _stop(self, reason: CloseReason) -> bool:
        """End the reading if it waits for a message; returns whether it does."""
        if self._is_receiving:
            self._stopped = reason
            self.reading.cancel()
        return self._is_receiving


async def _receive(websocket: WebSocket) -> str | bytes | CloseReason:
    """The next message, or how the client has disconnected."""
    message = await websocket.receive()
    if message["type"] == "websocket.disconnect":
        said = message.get("reason")
        reason = f"{DISCONNECTED.reason}: {said}" if said else DISCONNECTED.reason
        return CloseReason(message.get("code") or DISCONNECTED.code, reason, by_client=True)
    data: bytes | None = message.get("bytes")
    text: str | None = message.get("text")
    return data if data is not None else text or ""


async def _send_events(protocol: LiveProtocol, writer: _Writer) -> None:
    """Send all events."""
    async for event in protocol.stream.events():
        for message in protocol.render_event(event):
            writer.send(message)
        if isinstance(event, Final):
            writer.words += len(event.words)
            logger.debug("final: %s", " ".join(word.text for word in event.words))


class _Writer:
    """Sends messages in order, as JSON. Ends when the client takes none for too long, or has disconnected."""

    def __init__(self, websocket: WebSocket, session_id: str) -> None:
        self._websocket = websocket
        self._session_id = session_id
        self.words = 0  # of all finals
        self._messages: asyncio.Queue[Outgoing | None] = asyncio.Queue()
        self.is_broken = False  # whether the client has disconnected
        self.writing = asyncio.create_task(self._write())

    def send(self, message: Outgoing | None) -> None:
        """Queue a message, unless the client has disconnected. None: end, once all before are sent."""
        if message and "error" in message:
            logger.warning("session %s gets an error: %.500s", self._session_id, message["error"])
        if self.is_broken:
            return
        self._messages.put_nowait(message)
        if self._messages.qsize() > MAX_UNREAD:
            self.writing.cancel()

    async def _write(self) -> None:
        while (message := await self._messages.get()) is not None:
            try:
                async with asyncio.timeout(READ_SECONDS):
                    await self._websocket.send_text(json.dumps(message, separators=(",", ":")))
            except TimeoutError:
                return
            except Exception:  # whatever the server raises when the client has disconnected
                self.is_broken = True
                return
