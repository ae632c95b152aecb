"""Stands in front of a real server and fails as a test says: answers of its own, broken connections, a restart."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx

from tests.conftest import free_port


@dataclass(frozen=True)
class Instead:
    """An answer in place of the server's. status: None breaks the connection."""

    status: int | None
    retry_after: str | None = None
    code: str | None = None


class Gateway:
    """Forwards what is posted to `target`. instead: what happens to the next requests. answered: the server's 200s."""

    def __init__(self, target: str) -> None:
        self.port = free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        self.instead: list[Instead] = []
        self.on_answer: Callable[[int], None] = lambda count: None
        self.answered = self.asked = 0
        self._target = target
        self._lock = threading.Lock()
        self._open: set[socket.socket] = set()
        self._is_away = False
        self._server: ThreadingHTTPServer | None = None

    def start(self) -> None:
        """Listen."""
        gateway = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                with gateway._lock:
                    gateway.asked += 1
                    gateway._open.add(self.connection)
                    instead = gateway.instead.pop(0) if gateway.instead else None
                if instead is None:
                    kept = {name: self.headers[name] for name in ("content-type", "authorization")
                            if name in self.headers}  # fmt: skip
                    answer = httpx.post(gateway._target + self.path, content=body, headers=kept, timeout=120)
                    if gateway._is_away:
                        return
                    self.answer(answer.status_code, answer.content, {})
                    with gateway._lock:
                        gateway.answered += answer.status_code == 200
                        count = gateway.answered
                    gateway.on_answer(count)
                elif instead.status is None:
                    self.close_connection = True
                else:
                    error = {"message": "not now", "type": "t", "param": None, "code": instead.code}
                    headers = {"retry-after": instead.retry_after} if instead.retry_after else {}
                    self.answer(instead.status, json.dumps({"error": error}).encode(), headers)

            def answer(self, status: int, body: bytes, headers: dict[str, str]) -> None:
                self.send_response(status)
                for name, value in {**headers, "content-length": str(len(body))}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        class Quiet(ThreadingHTTPServer):
            daemon_threads = True

            def handle_error(self, *_: object) -> None:
                pass

        self._is_away = False
        self._server = Quiet(("127.0.0.1", self.port), Handler)
        threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def stop(self) -> None:
        """Refuse connections, and break those that are open, as a server that is killed does."""
        assert self._server
        self._is_away = True
        self._server.shutdown()
        self._server.server_close()
        with self._lock:
            for connection in self._open:
                with suppress(OSError):  # its client has gone
                    connection.shutdown(socket.SHUT_RDWR)
            self._open.clear()


@contextmanager
def gateway_to(target: str) -> Iterator[Gateway]:
    """A gateway that listens. target: the server's address, without `/v1`."""
    gateway = Gateway(target)
    gateway.start()
    yield gateway
    gateway.stop()
