"""Many long files at once: the clips of another caller are answered meanwhile."""

from __future__ import annotations

import asyncio
import time

import httpx
import numpy as np
import soundfile

from scripts.bench.serving import SAMPLE
from scripts.release.check_hostile import files
from scripts.release.check_hostile.tally import Tally
from tests.conftest import encode

REPEATS = 4  # of two minutes
CLIPS, BETWEEN_SECONDS = 12, 1.0
LONGEST_SECONDS = 60.0  # for a clip on a loaded machine: the first blocks of files that are older may go first


async def run(url: str, count: int, tally: Tally) -> None:
    """Send so many long files, then clips one after another; leave before the long ones are done."""
    samples, _ = soundfile.read(SAMPLE, dtype="float32")
    long = encode(np.tile(samples, REPEATS), container="ogg", codec="libopus", rate=48_000)
    clip = files.SAMPLE.read_bytes()
    text = files.known_texts()[files.SAMPLE.name]
    async with httpx.AsyncClient(base_url=url, timeout=None, limits=httpx.Limits(max_connections=None)) as client:

        async def post(data: bytes) -> httpx.Response:
            return await client.post("/v1/audio/transcriptions", files={"file": data}, data={"model": "whisper-1"})

        waiting = [asyncio.create_task(post(long)) for _ in range(count)]
        seconds = []
        for _ in range(CLIPS):
            await asyncio.sleep(BETWEEN_SECONDS)
            began = time.monotonic()
            answer = await post(clip)
            seconds.append(time.monotonic() - began)
            tally.answered("clip beside long files", answer)
            tally.heard("clip beside long files", answer.json().get("text", ""), text)
            if seconds[-1] > LONGEST_SECONDS:
                tally.wrong.append(f"a clip beside {count} long files took {seconds[-1]:.0f} s")
        done = [one.result().status_code for one in waiting if one.done()]
        for one in waiting:
            one.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)
    print(f"{count} long files, answered meanwhile: {done}; seconds for clips:", *(f"{one:.1f}" for one in seconds))
    tally.check_processes("long files")
