"""The server of `--local`: on loopback, with a key that nobody else has, ended with the command."""

from __future__ import annotations

import asyncio
import random
import secrets
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from os import environ

import httpx

from parakeet_stt.cli.exits import require
from parakeet_stt.cli.files.client import NoServer

START_SECONDS = 600.0  # for a large model from a slow disk
END_SECONDS = 60.0
LINES_SHOWN = 20  # of its log, if it does not start


@dataclass(frozen=True, slots=True)
class PrivateServer:
    """Where it is. url: the base of its API."""

    url: str
    key: str


@asynccontextmanager
async def private_server(given: Mapping[str, str]) -> AsyncIterator[PrivateServer]:
    """Serve while the context lasts. given: settings of the service. Raises NoServer if it does not start."""
    require("bentoml", "torch", extras=("engine", "serve"))
    port, key = free_port(), secrets.token_urlsafe()
    settings = {"STT_API_KEYS": key, "STT_FRONTS": "1", **given}
    command = [sys.executable, "-m", "parakeet_stt.cli.files.guard", str(port)]
    # The guard ends the server when this end of the pipe closes: also if this command is killed.
    process = subprocess.Popen(  # noqa: ASYNC220, S603
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        env={**environ, **settings}, start_new_session=True,
    )  # fmt: skip
    log: list[bytes] = []
    assert process.stdin
    assert process.stdout
    reading = asyncio.create_task(asyncio.to_thread(log.extend, process.stdout))
    try:
        await _wait_until_ready(f"http://127.0.0.1:{port}/readyz", process, log)
        yield PrivateServer(f"http://127.0.0.1:{port}/v1", key)
    finally:
        process.stdin.close()
        await asyncio.shield(asyncio.to_thread(process.wait, END_SECONDS))
        await reading


async def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: list[bytes]) -> None:
    deadline = time.monotonic() + START_SECONDS
    async with httpx.AsyncClient(trust_env=False) as client:
        while time.monotonic() < deadline and process.poll() is None:
            try:
                if (await client.get(url)).is_success:
                    return
            except httpx.TransportError:
                pass  # it does not listen yet
            await asyncio.sleep(0.2)
    raise NoServer("the private server did not start:\n" + b"".join(log[-LINES_SHOWN:]).decode(errors="replace"))


def free_port() -> int:
    """A port that nothing listens on, below those that the kernel gives to outgoing connections meanwhile."""
    while True:
        port = random.randrange(20_000, 32_000)
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("127.0.0.1", port))
            return port
