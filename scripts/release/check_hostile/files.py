"""Mutated media files: bytes flipped, cut, doubled and filled, in every format that is supported."""

from __future__ import annotations

import asyncio
import json
import random

import httpx
import numpy as np
import soundfile

from scripts.bench.serving import ROOT
from scripts.release.check_hostile.tally import Tally, within
from tests.conftest import encode

SAMPLE = ROOT / "models" / "parakeet-tdt-tiny" / "samples" / "short.flac"
SOURCES = (
    ("wav", "pcm_s16le", 16_000), ("wav", "pcm_f32le", 48_000), ("flac", "flac", 16_000), ("mp3", "libmp3lame", 44_100),
    ("ipod", "aac", 44_100), ("ogg", "libopus", 48_000), ("webm", "libopus", 48_000), ("mpegts", "aac", 48_000),
    ("aiff", "pcm_s16be", 44_100), ("adts", "aac", 16_000),
)  # fmt: skip
CALLERS = 6


def known_texts() -> dict[str, str]:
    """What is said in each of the bundled samples, by its file's name."""
    samples = json.loads((SAMPLE.parent / "samples.json").read_text())
    return {one["file"]: one["text"] for one in samples}


def mutate(data: bytes, pick: random.Random) -> bytes:
    """Something like `data`."""
    changed = bytearray(data)
    for _ in range(pick.choice((1, 10, 200))):
        place = pick.randrange(len(changed) or 1)
        match pick.randrange(5):
            case 0:
                changed[place : place + 1] = bytes([pick.randrange(256)])
            case 1:
                del changed[place : place + pick.randrange(1, 200)]
            case 2:
                changed[place:place] = changed[pick.randrange(len(changed) or 1) :][: pick.randrange(1, 200)]
            case 3:
                changed[place : place + 4] = pick.choice((b"\xff" * 4, bytes(4), b"\x7f\xff\xff\xff"))
            case 4:  # most headers are at the start
                changed[place % 200 : place % 200 + 1] = bytes([pick.randrange(256)])
    return bytes(changed)


def sources() -> list[bytes]:
    """A short sample in every format."""
    sound, _ = soundfile.read(SAMPLE, dtype="float32")
    samples = np.asarray(sound, np.float32)
    return [encode(samples, container=container, codec=codec, rate=rate) for container, codec, rate in SOURCES]


async def run(url: str, count: int, seed: int, tally: Tally, *, seconds: float) -> None:
    """Send so many of them, a few at a time, for so long at most."""
    originals, pick, left = sources(), random.Random(seed), within(seconds, count)

    async def call(client: httpx.AsyncClient) -> None:
        for _ in left:
            data = mutate(pick.choice(originals), pick)
            answer = await client.post(
                f"{url}/v1/audio/transcriptions", files={"file": ("a", data)}, data={"model": "whisper-1"}
            )
            tally.answered("files", answer)

    async with httpx.AsyncClient(timeout=300) as client:
        await asyncio.gather(*[call(client) for _ in range(CALLERS)])
    tally.check_processes("files")
    print("mutated files: done", flush=True)
