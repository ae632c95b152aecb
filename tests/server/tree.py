"""The processes of a running service, and which of its fronts is at the other end of a connection."""

from __future__ import annotations

import http.client
import socket
import time
from collections.abc import Callable
from typing import Any

import psutil  # type: ignore[import-untyped]

from tests.conftest import Serve

FRONT, DEVICE, MEDIA = "_bentoml_impl.worker.service", "processes.device", "processes.media"


def until(is_so: Callable[[], object], what: str, seconds: float = 60) -> float:
    """Wait until something is so; returns the seconds that it took."""
    began = time.monotonic()
    while not is_so():
        assert time.monotonic() - began < seconds, f"not within {seconds} s: {what}"
        time.sleep(0.05)
    return time.monotonic() - began


def processes(serve: Serve, part: str = "") -> list[psutil.Process]:
    """The service's parent and all that descend from it, whose command line has this part."""
    parent = psutil.Process(serve.process.pid)
    return [one for one in (parent, *parent.children(recursive=True)) if part in " ".join(one.cmdline())]


def maps_of(process: psutil.Process) -> str:
    """The files that are mapped into the process."""
    with open(f"/proc/{process.pid}/maps") as maps:
        return maps.read()


def front_of(serve: Serve, client: socket.socket) -> int:
    """The number of the front process that has accepted this connection."""
    port = client.getsockname()[1]

    def find() -> list[int]:
        return [
            front.pid
            for front in processes(serve, FRONT)
            for connection in front.net_connections("tcp")
            if connection.raddr and connection.raddr.port == port
        ]

    until(find, "a front accepts the connection", 10)
    return find()[0]


class Caller:
    """Connections to one front, one at a time, kept open. front: its process."""

    def __init__(self, serve: Serve, **headers: str) -> None:
        self._serve, self._headers = serve, headers
        self.front = self._connect()

    def _connect(self) -> int:
        """The process that takes the connection."""
        self._connection = http.client.HTTPConnection("127.0.0.1", self._serve.port, timeout=120)
        self._ask("GET", "/healthz")
        assert self._connection.sock is not None
        self._socket = self._connection.sock
        return front_of(self._serve, self._socket)

    def ask(self, method: str, path: str, body: bytes | None = None, kind: str = "application/json") -> tuple[int, str]:
        """Status and text of an answer of this front, over a new connection if the last was idle for too long."""
        try:
            return self._ask(method, path, body, kind)
        except ConnectionError:
            assert any(self._connect() == self.front for _ in range(100)), "another front took all connections"
            return self._ask(method, path, body, kind)

    def _ask(
        self, method: str, path: str, body: bytes | None = None, kind: str = "application/json"
    ) -> tuple[int, str]:
        self._connection.request(method, path, body, {"content-type": kind, **self._headers})
        response = self._connection.getresponse()
        return response.status, response.read().decode()

    def metrics(self) -> dict[str, float]:
        """What this front says about the service."""
        status, text = self.ask("GET", "/metrics")
        assert status == 200
        assert self._connection.sock is self._socket, "another connection, maybe to another front"
        lines = (line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
        return {name: float(value) for name, value in lines}

    def close(self) -> None:
        self._connection.close()


def one_of_each(serve: Serve, connect: Callable[[], Any], front: Callable[[Any], int]) -> list[Any]:
    """Connections to both fronts, one each; which front takes a connection is chance."""
    found: dict[int, Any] = {}
    for _ in range(100):
        one = connect()
        if front(one) in found:
            one.close()  # before the next is made: sessions are limited
        else:
            found[front(one)] = one
        if len(found) == 2:
            break
    assert sorted(found) == sorted(one.pid for one in processes(serve, FRONT)), "one front took all connections"
    return list(found.values())
