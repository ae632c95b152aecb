"""A soak: callers whose texts are known, beside hostile ones, for as long as is asked."""

from __future__ import annotations

import asyncio
import json
import random
import socket
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from typing import Any

import httpx
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from scripts.bench.serving import ROOT
from scripts.release.check_hostile import files
from scripts.release.check_hostile.sockets import invent_message
from scripts.release.check_hostile.tally import Tally

SAMPLES = ROOT / "models" / "parakeet-tdt-tiny" / "samples"
NAMES = ("short", "two-sentences")
MINUTE = 60.0
BOUNDARY = b"--x\r\nContent-Disposition: form-data; name="
ODDITIES: tuple[bytes, ...] = (
    b"GET / HTTP/1.1\r\nHost: localhost\r\nX-A: " + b"a" * (1 << 20),
    b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 5000,
    b"POST /ws HTTP/1.1\r\nHost: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n",
    b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000000\r\n\r\nx",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + bytes(500),
    b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20,
)


async def run(url: str, seconds: float, seed: int, tally: Tally) -> None:
    """Soak for so long."""
    texts = files.known_texts()
    known = [(f"{name}.flac", texts[f"{name}.flac"]) for name in NAMES]
    over = time.monotonic() + seconds
    pick, originals = random.Random(seed), files.sources()
    port = int(url.rpartition(":")[2])

    async def again(act: Callable[[], Coroutine[Any, Any, None]]) -> None:
        while time.monotonic() < over:
            try:
                await act()
            except (httpx.HTTPError, WebSocketException, OSError) as exc:
                tally.wrong.append(f"soak {act.__name__}, {time.strftime('%X')}: {type(exc).__name__}: {exc}")
                print("WRONG", tally.wrong[-1], flush=True)
                await asyncio.sleep(1)

    async with httpx.AsyncClient(base_url=url, timeout=300) as client:

        async def upload() -> None:
            name, text = pick.choice(known)
            form = {"files": {"file": (name, (SAMPLES / name).read_bytes())}, "data": {"model": "whisper-1"}}
            answer = await client.post("/v1/audio/transcriptions", **form)  # type: ignore[arg-type]
            if answer.status_code == 200:
                tally.heard("soak upload", answer.json()["text"], text)
            else:
                tally.answered("soak upload", answer)

        async def talk() -> None:
            name, text = pick.choice(known)
            tally.heard("soak session", await _say(url, name), text)

        async def mutated() -> None:
            form = {"file": ("a", files.mutate(pick.choice(originals), pick))}
            tally.answered("soak file", await client.post("/transcribe", files=form))

        async def nonsense() -> None:
            async with connect(f"{url.replace('http', 'ws')}/ws", proxy=None, max_size=None) as live:
                with suppress(ConnectionClosed):
                    for _ in range(20):
                        await live.send(invent_message(pick))
                        tally.counts["soak nonsense"] += 1

        async def oddity() -> None:
            await asyncio.to_thread(_send_and_leave, port, pick.choice(ODDITIES))
            tally.counts["soak oddity"] += 1
            tally.answered("soak address", await client.post("/bentoml/transcribe", **_address(port)))

        async def measure() -> None:
            await asyncio.sleep(min(MINUTE, max(0.0, over - time.monotonic())))
            tally.check_processes("soak")
            print(f"soak: {tally.memory[-1]} MB", flush=True)

        acts = (upload, upload, talk, talk, mutated, nonsense, oddity, measure)
        await asyncio.gather(*[again(act) for act in acts])


async def _say(url: str, name: str) -> str:
    """What a session hears in a sample."""
    samples, _ = soundfile.read(SAMPLES / name, dtype="int16")
    data = samples.tobytes()
    texts = []
    async with connect(f"{url.replace('http', 'ws')}/ws", proxy=None, compression=None) as live:
        for at in range(0, len(data), 3200):
            await live.send(data[at : at + 3200])
        await live.send(json.dumps({"type": "end"}))
        with suppress(ConnectionClosed):
            async for message in live:
                event = json.loads(message)
                texts += [event["text"]] if event["type"] == "final" else []
    return " ".join(texts)


def _send_and_leave(port: int, data: bytes) -> None:
    with suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=5) as connection:
        connection.sendall(data)
        time.sleep(0.2)


def _address(port: int) -> dict[str, Any]:
    content = BOUNDARY + b'"audio"\r\n\r\nhttp://127.0.0.1:%d/healthz\r\n--x--\r\n' % port
    return {"content": content, "headers": {"content-type": "multipart/form-data; boundary=x"}}
