"""Sockets that say nonsense, and clients that send faster than real time."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from contextlib import suppress
from typing import Any

import numpy as np
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, WebSocketException

from scripts.bench.serving import SAMPLE
from scripts.release.check_hostile.tally import Tally, within

PATHS = ("/ws", "/v1/realtime")
KINDS = ("hello", "commit", "end", "session.update", "transcription_session.update", "input_audio_buffer.append",
         "input_audio_buffer.commit", "input_audio_buffer.clear", "", "nothing")  # fmt: skip
NAMES = ("type", "session", "audio", "input", "format", "rate", "prompt", "keywords", "language", "sample_rate",
         "turn_detection", "transcription", "threshold", "partials")  # fmt: skip
MESSAGES_A_SESSION = 40
SESSIONS = 8
FAST_SECONDS, FAST_RATE = 300, 24_000
FRAME_BYTES = 9600


def invent(pick: random.Random, depth: int = 0) -> Any:
    """Some value of JSON."""
    match pick.randrange(9 if depth < 4 else 6):
        case 0:
            return pick.choice((None, True, False, 0, -1, 1e308, 2**70, 0.5, 24_000))
        case 1:
            return "".join(chr(pick.randrange(0x20, 0x500)) for _ in range(pick.randrange(20)))
        case 2:
            return pick.choice(KINDS)
        case 3:
            return "\ud800"
        case 4:
            return "A" * pick.choice((1, 100, 300_000))
        case 5:
            return base64.b64encode(pick.randbytes(pick.randrange(2000))).decode()
        case 6:
            return [invent(pick, depth + 1) for _ in range(pick.randrange(4))]
        case _:
            return {pick.choice(NAMES): invent(pick, depth + 1) for _ in range(pick.randrange(5))}


def invent_message(pick: random.Random) -> str | bytes:
    """Audio, an event, or nonsense."""
    match pick.randrange(5):
        case 0:
            return pick.randbytes(pick.choice((0, 1, 2, 640, 100_000)))
        case 1:
            return pick.choice(("", "{", "[" * 100_000, "null", "\x00", '{"type":"commit"}', "9" * 5000))
        case _:
            return json.dumps({"type": pick.choice(KINDS), **{pick.choice(NAMES): invent(pick) for _ in range(3)}})


async def fuzz(url: str, count: int, seed: int, tally: Tally, *, seconds: float) -> None:
    """Send so many messages to both sockets, a few sessions at a time, for so long at most."""
    pick, left = random.Random(seed), within(seconds, -(-count // MESSAGES_A_SESSION))

    async def call() -> None:
        for number in left:
            path = PATHS[number % 2]
            try:
                async with connect(url.replace("http", "ws") + path, proxy=None, max_size=None) as live:
                    reading = asyncio.create_task(_drop(live))
                    with suppress(ConnectionClosed):
                        for _ in range(MESSAGES_A_SESSION):
                            await live.send(invent_message(pick))
                            tally.counts[f"sockets {path}"] += 1
                    await live.close()
                    await reading
            except (WebSocketException, OSError) as exc:
                tally.wrong.append(f"sockets {path}: {exc!r}")
            if live.close_code == 1011:
                tally.wrong.append(f"sockets {path}: 1011 {live.close_reason}")

    await asyncio.gather(*[call() for _ in range(SESSIONS)])
    tally.check_processes("sockets")
    print("messages: done", flush=True)


async def _drop(live: ClientConnection) -> None:
    with suppress(ConnectionClosed):
        async for _ in live:
            pass


async def send_fast(url: str, count: int, tally: Tally) -> None:
    """So many clients of /v1/realtime that send 300 s at once; all have to get the same finals, to the last."""
    sound, rate = soundfile.read(SAMPLE, dtype="float32")
    places = np.arange(FAST_SECONDS * FAST_RATE) * rate / FAST_RATE % (len(sound) - 1)
    data = (np.interp(places, np.arange(len(sound)), sound) * 32767).astype("<i2").tobytes() + bytes(2 * FAST_RATE)
    said = list(await asyncio.gather(*[_speak(url, data) for _ in range(count)]))
    for texts in said:
        is_dropped = texts.startswith("dropped") or not texts
        tally.heard("fast", texts, "all finals" if is_dropped else said[0])
    tally.check_processes("fast")
    print(f"{count} clients that send faster than real time", flush=True)


async def _speak(url: str, data: bytes) -> str:
    texts: list[str] = []
    async with connect(f"{url.replace('http', 'ws')}/v1/realtime", proxy=None, compression=None) as live:

        async def send() -> None:
            for at in range(0, len(data), FRAME_BYTES):
                audio = base64.b64encode(data[at : at + FRAME_BYTES]).decode()
                await live.send(json.dumps({"type": "input_audio_buffer.append", "audio": audio}))
            await live.send(json.dumps({"type": "input_audio_buffer.clear"}))

        sending = asyncio.create_task(send())
        try:
            async for message in live:
                event = json.loads(message)
                if event["type"].endswith("transcription.completed"):
                    texts.append(event["transcript"])
                elif event["type"] == "input_audio_buffer.cleared":
                    break
        except ConnectionClosed as exc:
            sending.cancel()
            return f"dropped: {exc!r}"
        await asyncio.wait({sending})
    return " ".join(texts)
