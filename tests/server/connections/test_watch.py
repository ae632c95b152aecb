"""Who reads no answer does not hold up the end of a service; a front that stands still loses no request."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from contextlib import closing
from typing import TYPE_CHECKING

import uvicorn

from parakeet_stt.server.connections.http import HttpProtocol
from parakeet_stt.server.connections.watch import ENDING_SECONDS

if TYPE_CHECKING:
    from uvicorn._types import ASGIReceiveCallable, ASGISendCallable, Scope

ANSWER = bytes(32 << 20)  # more than the kernel takes of an answer that nobody reads
PATIENCE = 10.0  # seconds; a loaded machine


def test_the_end_waits_seconds_only_for_who_reads_no_answer() -> None:
    answered = asyncio.Event()

    async def app(_: Scope, __: ASGIReceiveCallable, send: ASGISendCallable) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": [], "trailers": False})
        await send({"type": "http.response.body", "body": ANSWER, "more_body": False})
        answered.set()

    async def run(listening: socket.socket) -> None:
        server = uvicorn.Server(uvicorn.Config(app, http=HttpProtocol, lifespan="off", log_config=None))
        serving = asyncio.create_task(server.serve([listening]))
        with closing(socket.create_connection(listening.getsockname())) as connection:
            connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n")
            await asyncio.wait_for(answered.wait(), PATIENCE)
            server.should_exit = True
            await asyncio.wait_for(serving, ENDING_SECONDS + PATIENCE)

    with socket.create_server(("127.0.0.1", 0)) as listening:
        asyncio.run(run(listening))


HALTING = """
import socket, sys, time
import uvicorn, uvloop
from parakeet_stt.server.connections import http
http.HEAD_SECONDS = 3.0

class Protocol(http.HttpProtocol):
    def data_received(self, data):
        if data.startswith(b"HALT"):
            print("halted", flush=True)
            time.sleep(5.0)
        super().data_received(data)

async def app(scope, receive, send):
    await send({"type": "http.response.start", "status": 204, "headers": []})
    await send({"type": "http.response.body", "body": b""})

listening = socket.socket(fileno=int(sys.argv[1]))
config = uvicorn.Config(app, http=Protocol, lifespan="off", log_config=None, timeout_keep_alive=3)
print("ready", flush=True)
uvloop.run(uvicorn.Server(config).serve([listening]))
"""
REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"


def test_a_request_that_comes_while_the_front_stands_still_is_answered() -> None:
    """On a new connection, and on one that has had an answer.

    A front that is stopped while it reads does first, when it goes on, what is due by then, and reads after that.
    """
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = listening.getsockname()
        command = [sys.executable, "-c", HALTING, str(listening.fileno())]
        with (
            subprocess.Popen(command, pass_fds=[listening.fileno()], stdout=subprocess.PIPE) as front,
            closing(socket.create_connection(address, PATIENCE)) as halting,
            closing(socket.create_connection(address, PATIENCE)) as used,
        ):
            assert front.stdout is not None
            try:
                assert front.stdout.readline() == b"ready\n"
                used.sendall(REQUEST)
                assert b" 204 " in used.recv(1000)
                with closing(socket.create_connection(address, PATIENCE)) as new:
                    halting.sendall(b"HALT")
                    assert front.stdout.readline() == b"halted\n"
                    for connection in (used, new):
                        connection.sendall(REQUEST)
                    for connection in (used, new):
                        assert b" 204 " in connection.recv(1000)
            finally:
                front.kill()
