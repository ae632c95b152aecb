"""A WebSocket: uvicorn's, read in rounds; it answers pings while the session takes no more, and ends floods."""

from __future__ import annotations

import asyncio
import os
import socket
from collections import deque
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, cast

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import Frame

from parakeet_stt.server.connections.rounds import Rounds
from parakeet_stt.server.connections.watch import MAX_UNREAD_BYTES, Watch

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveEvent

# A session takes messages as fast as its audio is decoded. The pings of a client that sends faster come after the audio
# that it sent before, and most clients leave when one has no answer for 20 s: so little may lie between the two ends.
# The kernel's own sizes grow to 6 MB here and 4 MB there, 160 s of audio as /v1/realtime has it.
RECEIVE_BUFFER_BYTES = 128 << 10  # 2 s of such audio, and 1.3 MB/s at a round trip of 100 ms
READ_AHEAD_BYTES, READ_AHEAD_MESSAGES = 256 << 10, 4096
ROUND_BYTES = 2 * RECEIVE_BUFFER_BYTES  # read at once in a round: all that the kernel keeps
SLICE_BYTES = 8 << 10  # parsed at once: 1365 of the smallest frames, which take 15 ms
MAX_FRAGMENTS = 1024  # of one message


class _Messages(asyncio.Queue[Any]):
    """The messages that wait for the session. size: in bytes or characters."""

    def _init(self, maxsize: int) -> None:
        self._queue: deque[Mapping[str, Any]] = deque()
        self.size = 0

    def _put(self, item: Mapping[str, Any]) -> None:
        self.size += _size(item)
        self._queue.append(item)

    def _get(self) -> Mapping[str, Any]:
        item = self._queue.popleft()
        self.size -= _size(item)
        return item


def _size(message: Mapping[str, Any]) -> int:
    return len(message.get("bytes") or message.get("text") or "")


class SocketProtocol(WebSocketsSansIOProtocol):
    """One connection. It reads ahead, answers pings meanwhile, and parses a little at a time."""

    queue: _Messages
    _watch: Watch
    _rounds: Rounds

    def __init__(self, *args: Any, **options: Any) -> None:
        """As uvicorn calls it."""
        super().__init__(*args, **options)
        self.queue = _Messages()
        self._unparsed = b""
        self._parsing: asyncio.Handle | None = None
        self._read_at = 0.0  # when something came last, or reading went on, in the event loop's time

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        transport = cast(asyncio.Transport, transport)  # of uvloop, whose transports are no subclass
        super().connection_made(transport)
        own: socket.socket = transport.get_extra_info("socket")
        own.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, RECEIVE_BUFFER_BYTES)
        # TLS is read by the transport alone, which drops what it has not delivered at the end of a paused connection.
        self._descriptor = own.fileno() if self.scheme == "ws" else None
        self._rounds = Rounds.of(self.loop)
        self._watch = Watch(transport)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`. What came before is handled before."""
        self._watch.stop()
        self._rounds.leave(self)
        self._unparsed += self._read()  # a write that failed may be how the end was noticed
        if self._parsing:
            self._parsing.cancel()
        while self._unparsed and not self.close_sent:
            self._parse_slice()
        super().connection_lost(exc)

    def shutdown(self) -> None:
        """The server ends; called by uvicorn."""
        self._watch.hurry()
        super().shutdown()

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`. From now on it is read in rounds."""
        self._take(data)
        is_read = self.handshake_complete and not self.read_paused and not self.transport.is_closing()
        if is_read and self._descriptor is not None:
            self.transport.pause_reading()
            self._rounds.join(self)

    def read_now(self) -> bool:
        """See `rounds.Member`."""
        if self.transport.is_closing():
            return False
        if data := self._read():
            self._take(data)
        else:
            self.transport.resume_reading()
        return bool(data)

    def _take(self, data: bytes) -> None:
        self._read_at = self.loop.time()
        self._unparsed += data
        if self._parsing is None:
            self._parse()

    def _read(self) -> bytes:
        """What has come; nothing at the end of the stream, which the transport meets too, or over TLS."""
        if self._descriptor is None:
            return b""
        try:
            return os.read(self._descriptor, ROUND_BYTES)
        except OSError:
            return b""

    def abort(self) -> None:
        """See `rounds.Member`."""
        self.transport.abort()

    def send_receive_event_to_app(self) -> None:
        """A message is complete."""
        before, self.read_paused = self.read_paused, True  # uvicorn pauses after each message
        super().send_receive_event_to_app()
        self.read_paused = before

    async def receive(self) -> ASGIReceiveEvent:
        """The next message; called by the app."""
        message: ASGIReceiveEvent = await self.queue.get()
        if self._parsing is None and (self._unparsed or self.read_paused):
            self._parse()
        return message

    def handle_cont(self, event: Frame) -> None:
        """A fragment."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(1008, f"a message may have at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def handle_ping(self) -> None:
        """A ping, which the parser has answered."""
        if self.transport.get_write_buffer_size() > MAX_UNREAD_BYTES:
            self.transport.abort()
        else:
            super().handle_ping()

    def keepalive_timeout(self) -> None:
        """No answer to our ping. A client that sends is there: its answer comes after what we have not read yet."""
        if self.read_paused or self._read_at > self.ping_sent_at:
            self.pong_timer = self.pending_ping_payload = None
            self.schedule_ping()
        else:
            super().keepalive_timeout()

    @property
    def _is_full(self) -> bool:
        return self.queue.size > READ_AHEAD_BYTES or self.queue.qsize() > READ_AHEAD_MESSAGES

    def _parse(self) -> None:
        """Parse a slice of what has come, and the next one after whatever else the event loop has to do."""
        self._parsing = None
        if self._unparsed and not self._is_full:
            self._parse_slice()
        if self.transport.is_closing():
            return
        if self._unparsed and not self._is_full:
            self._parsing = self.loop.call_soon(self._parse)
        is_behind = bool(self._unparsed) or self._is_full
        if is_behind and not self.read_paused:
            self.transport.pause_reading()
            self._rounds.leave(self)
        elif self.read_paused and not is_behind:
            self.transport.resume_reading()
            self._read_at = self.loop.time()
        self.read_paused = is_behind

    def _parse_slice(self) -> None:
        data, self._unparsed = self._unparsed[:SLICE_BYTES], self._unparsed[SLICE_BYTES:]
        super().data_received(data)
