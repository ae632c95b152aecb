"""An HTTP connection: uvicorn's, with limits of a request's line and headers, in bytes, in number and in time."""

from __future__ import annotations

import asyncio
import logging
import resource
import time
from typing import TYPE_CHECKING, cast

from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol, RequestResponseCycle

from parakeet_stt.server.connections.watch import CHECK_SECONDS, Overdue, Watch
from parakeet_stt.server.http.errors import envelope

if TYPE_CHECKING:
    from uvicorn._types import ASGI3Application

logger = logging.getLogger(__name__)
# As most servers and proxies have it: nginx takes 32 KiB (large_client_header_buffers), Node.js 16, h11 64.
MAX_HEAD_BYTES = 64 << 10
MAX_HEADERS = 100  # Apache's LimitRequestFields
HEAD_SECONDS = 20.0  # from a request's first byte, or from the connection's beginning; Apache's RequestReadTimeout
# Of this process's descriptors, kept for requests that are being answered, each of which needs a few. A connection that
# gets one of them is told to come back. With none left the system could not even accept it.
RESERVED_DESCRIPTORS = 64
CROWDED_HEAD_SECONDS = 2.0  # in place of `HEAD_SECONDS`, for such a connection
LOG_SECONDS = 10.0  # between two lines in the log about it
RETRY_SECONDS = 5
MAX_PIPELINED = 16  # requests of a connection that wait for the answer to another


class HttpProtocol(HttpToolsProtocol):
    """One connection. Each limit is answered in the envelope, and ends the connection.

    The parser keeps what is incomplete, and adds to it in a time that grows with the square of its length, so what it
    is fed is counted before.
    """

    _watch: Watch
    _running: RequestResponseCycle | None = None  # the request that is being answered
    _refusal: tuple[int, str] | None = None  # status and message, once a limit is passed
    _incomplete_bytes = 0  # fed to the parser since it last completed something
    _head_bytes = 0  # of the request's line and headers that are complete
    _head_began_at: float | None  # None while no request's head is awaited
    _has_begun = False  # whether some of the head is there
    _is_crowded = False  # whether there are hardly any descriptors left
    _logged_at = -LOG_SECONDS  # of all connections

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """See `asyncio.Protocol`."""
        transport = cast(asyncio.Transport, transport)  # of uvloop, whose transports are no subclass
        super().connection_made(transport)
        self._watch, self._overdue = Watch(transport, self._check_head), Overdue()
        Watch.let_others_accept()
        self._head_began_at = self.loop.time()
        most = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
        # The kernel gives the lowest number that is free.
        if transport.get_extra_info("socket").fileno() >= most - min(RESERVED_DESCRIPTORS, most // 2):
            self._is_crowded = True
            if time.monotonic() - HttpProtocol._logged_at > LOG_SECONDS:
                HttpProtocol._logged_at = time.monotonic()
                logger.error("out of descriptors: %d are open or reserved; new connections get 503", most)

    def connection_lost(self, exc: Exception | None) -> None:
        """See `asyncio.Protocol`."""
        self._watch.stop()
        for cycle in filter(None, [self._running, *(waiting for waiting, _ in self.pipeline)]):
            cycle.disconnected = True  # uvicorn tells the latest only
            cycle.message_event.set()
        self.pipeline.clear()
        super().connection_lost(exc)

    def _start_asgi_task(self, cycle: RequestResponseCycle, app: ASGI3Application) -> None:
        self._running = cycle
        super()._start_asgi_task(cycle, app)

    def data_received(self, data: bytes) -> None:
        """See `asyncio.Protocol`."""
        if self._head_began_at is None and (self.cycle is None or self.cycle.response_complete):
            self._head_began_at = self.loop.time()
        self._incomplete_bytes += len(data)
        super().data_received(data)
        if self._incomplete_bytes > MAX_HEAD_BYTES and not self.transport.is_closing():
            self._refuse_head()
            self.send_400_response("")

    def on_message_begin(self) -> None:
        """A request begins."""
        super().on_message_begin()
        self._head_began_at = self.loop.time()
        self._incomplete_bytes = self._head_bytes = 0
        self._has_begun = True

    def on_url(self, url: bytes) -> None:
        """A part of its address."""
        self._count(len(url))
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        """A header; after the body it is a trailer, which nothing here reads."""
        self._count(len(name) + len(value))
        if self._head_began_at is not None:
            super().on_header(name, value)
            if len(self.headers) > MAX_HEADERS:
                self._refuse_head()
                raise ValueError

    def on_headers_complete(self) -> None:
        """Its head is complete."""
        self._head_began_at = None
        self._has_begun = False
        self._incomplete_bytes = 0
        if self._is_crowded:
            self._refusal = 503, "The server has too many connections. Please retry."
            raise ValueError
        super().on_headers_complete()
        if len(self.pipeline) > MAX_PIPELINED:
            self._refusal = 429, f"At most {MAX_PIPELINED} requests of one connection may wait."
            raise ValueError

    def on_body(self, body: bytes) -> None:
        """A part of its body."""
        self._incomplete_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """It is complete."""
        self._incomplete_bytes = 0
        super().on_message_complete()

    def _should_upgrade(self) -> bool:
        """Whether it asks for a socket. One that does so with another method than GET is an ordinary request."""
        return super()._should_upgrade() and self.parser.get_method() == b"GET"

    def handle_websocket_upgrade(self) -> None:
        """The connection becomes a socket, which is watched for itself."""
        self._watch.stop()
        super().handle_websocket_upgrade()

    def send_400_response(self, msg: str) -> None:
        """Answer what can't be parsed, or is refused, and close."""
        status, message = self._refusal or (400, "This is not a request of HTTP/1.1.")
        response = envelope(status, message)
        response.headers["connection"] = "close"
        if status in (429, 503):
            response.headers["retry-after"] = str(RETRY_SECONDS)
        head = b"".join(b"%s: %s\r\n" % header for header in response.raw_headers)
        self.transport.write(STATUS_LINE[status] + head + b"\r\n" + bytes(response.body))
        self.transport.close()

    def timeout_keep_alive_handler(self) -> None:
        """The client has sent nothing for long since its last answer, or it is not read yet; called by uvicorn."""
        self.timeout_keep_alive_task = self.loop.call_later(CHECK_SECONDS, super().timeout_keep_alive_handler)

    def shutdown(self) -> None:
        """The server ends; called by uvicorn."""
        self._watch.hurry()
        super().shutdown()

    def _count(self, size: int) -> None:
        self._head_bytes += size
        if self._head_bytes > MAX_HEAD_BYTES:
            self._refuse_head()
            raise ValueError  # the parser stops

    def _refuse_head(self) -> None:
        self._refusal = (
            431,
            (f"The request's line and headers may have at most {MAX_HEAD_BYTES} bytes and {MAX_HEADERS} headers."),
        )

    def _check_head(self, now: float) -> None:
        most = CROWDED_HEAD_SECONDS if self._is_crowded else HEAD_SECONDS
        is_late = self._head_began_at is not None and now - self._head_began_at > most
        if not self._overdue.look(is_late=is_late) or self.transport.is_closing():
            return
        if self._has_begun:
            self._refusal = 408, f"The request's line and headers have not come within {most:.0f} s."
            self.send_400_response("")
        else:
            self.transport.close()
