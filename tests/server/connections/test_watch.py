"""The end of a service does not wait for who reads no answer: one that is complete, and only in the buffers."""

from __future__ import annotations

import asyncio
import socket
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
