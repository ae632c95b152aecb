"""Knows how fast a served model answers over real HTTP, from another process. Knows nothing of the server's insides.

    make bench
    .venv/bin/python scripts/bench_server.py --model build/parakeet-0.6b-random.nemo --seconds 60

Clips of 1 to 30 s, cut from the bundled long sample. Closed loop: so many callers, each of whom asks again as soon as
it has its answer. Open loop: requests at random moments, at a share of the rate that the closed loop reached, whatever
becomes of them. Each figure stands beside the bound: what the bare network reaches here on perfectly packed batches
(bench_engine.py). Starts the service as `make serve` does, unless --url names a running one. Prints a table, then one
JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import random
import subprocess
import sys
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import httpx
import numpy as np
import soundfile

ROOT = Path(__file__).parents[1]
SAMPLE = ROOT / "models" / "parakeet-tdt-tiny" / "samples" / "two-minutes.flac"
PORT = 3099
SHORTEST, LONGEST = 1.0, 30.0
CLIPS = 200
CALLERS = (1, 8, 64, 256)
SHARES = (0.5, 0.8, 1.2)  # of the closed loop's best rate


@dataclass(frozen=True)
class Clip:
    data: bytes
    seconds: float


@dataclass
class Row:
    """One line of the table. rtfx: seconds of audio answered in a second. heard: the share of it that is speech."""

    load: str
    requests: int
    errors: int
    rtfx: float
    heard: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    fill: float
    items: float


def clips() -> list[Clip]:
    """Pieces of the sample as 16-bit wav files, always the same."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    pick = random.Random(0)
    made = []
    for _ in range(CLIPS):
        length = int(pick.uniform(SHORTEST, LONGEST) * rate)
        start = pick.randrange(len(samples) - length)
        out = io.BytesIO()
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(rate)
            file.writeframes(samples[start : start + length].tobytes())
        made.append(Clip(out.getvalue(), length / rate))
    return made


@contextmanager
def served(url: str | None, model: str | None) -> Iterator[str]:
    """The address of a server that is ready."""
    if url:
        yield url
        return
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:ParakeetSTT", "--port", str(PORT),
               "--host", "127.0.0.1"]  # fmt: skip
    environment = {**os.environ, "STT_LOG_LEVEL": "warning", **({"STT_MODEL": str(model)} if model else {})}
    with subprocess.Popen(
        command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    ) as process:
        try:
            yield f"http://127.0.0.1:{PORT}"
        finally:
            process.terminate()


def wait_until_ready(url: str, seconds: float = 180) -> float:
    """Seconds until /readyz answers 200."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return time.monotonic() - began
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    sys.exit(f"{url} was not ready in {seconds:.0f} s")


def counted(url: str) -> dict[str, float]:
    """The server's own counters, by name."""
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


class Load:
    """Requests from one process, and what became of those that ended after the warm-up."""

    def __init__(self, client: httpx.AsyncClient, url: str, sounds: list[Clip], seconds: float) -> None:
        self.client, self.url, self.sounds = client, url, sounds
        self.pick = random.Random(1)
        self.counting_from = time.monotonic() + seconds / 4
        self.until = time.monotonic() + seconds
        self.delays: list[float] = []
        self.audio = 0.0
        self.errors = 0

    async def one(self) -> None:
        """Ask once."""
        clip = self.pick.choice(self.sounds)
        began = time.monotonic()
        try:
            answer = await self.client.post(
                f"{self.url}/v1/audio/transcriptions", files={"file": ("a.wav", clip.data)}, data={"model": "whisper-1"}
            )
            good = answer.status_code == 200
        except httpx.TransportError:
            good = False
        ended = time.monotonic()
        if self.counting_from <= ended <= self.until:
            self.errors += not good
            if good:
                self.delays.append(ended - began)
                self.audio += clip.seconds

    async def closed(self, callers: int) -> None:
        """`callers` callers until the time is over."""

        async def caller() -> None:
            while time.monotonic() < self.until:
                await self.one()

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def open(self, rate: float) -> None:
        """Requests at random moments, `rate` a second."""
        async with asyncio.TaskGroup() as group:
            while time.monotonic() < self.until:
                group.create_task(self.one())
                await asyncio.sleep(self.pick.expovariate(rate))


async def measured(url: str, sounds: list[Clip], seconds: float, *, callers: int = 0, rate: float = 0) -> Row:
    """One load of `seconds`, the first quarter of which is not counted."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=callers or 64)
    async with httpx.AsyncClient(timeout=900, limits=limits) as client:
        load = Load(client, url, sounds, seconds)

        async def counters() -> tuple[dict[str, float], dict[str, float]]:
            await asyncio.sleep(load.counting_from - time.monotonic())
            before = await asyncio.to_thread(counted, url)
            await asyncio.sleep(load.until - time.monotonic())
            return before, await asyncio.to_thread(counted, url)

        (before, after), _ = await asyncio.gather(counters(), load.closed(callers) if callers else load.open(rate))

    def delta(name: str) -> float:
        return after[name] - before[name]

    batches = max(1.0, delta("stt_batch_items_count"))
    delays = load.delays or [float("nan")]
    p50, p95, p99 = (round(float(value) * 1000, 1) for value in np.percentile(delays, [50, 95, 99]))
    return Row(
        load=f"{callers} callers" if callers else f"{rate:.1f} a second",
        requests=len(load.delays),
        errors=load.errors,
        rtfx=round(load.audio / (load.until - load.counting_from), 1),
        heard=round(delta("stt_inference_audio_seconds_total") / max(1e-9, delta("stt_audio_seconds_total")), 3),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        fill=round(delta("stt_batch_fill_sum") / batches, 3),
        items=round(delta("stt_batch_items_sum") / batches, 1),
    )


def the_bound(model: str | None) -> float:
    """What the bare network reaches, measured by bench_engine.py in a process of its own."""
    command = [sys.executable, str(ROOT / "scripts" / "bench_engine.py"), "--short", "--only", "bound"]
    output = subprocess.run([*command, *(["--model", model] if model else [])], check=True, capture_output=True)
    bound: float = json.loads(output.stdout.splitlines()[-1])["best_rtfx"]["bound"]
    return bound


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server")
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    arguments = parser.parse_args()
    bound = the_bound(arguments.model)
    sounds = clips()
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        print(f"{row.load:16} {row.requests:8} {row.errors:6} {row.rtfx:8.1f} {row.rtfx / bound:8.2f} {row.heard:6.2f} "
              f"{row.p50_ms:8.0f} {row.p95_ms:8.0f} {row.p99_ms:8.0f} {row.fill:5.2f} {row.items:6.1f}",
              flush=True)  # fmt: skip

    with served(arguments.url, arguments.model) as url:
        ready = wait_until_ready(url)
        health = httpx.get(f"{url}/healthz").json()
        print(f"{health['model']} on {health['device']} in {health['precision']}; {os.cpu_count()} processors; ready "
              f"after {ready:.1f} s; the bare network on full batches: {bound:.0f} x real time\n")  # fmt: skip
        print(f"{'load':16} {'requests':>8} {'errors':>6} {'RTFx':>8} {'/ bound':>8} {'heard':>6} {'p50 ms':>8} "
              f"{'p95 ms':>8} {'p99 ms':>8} {'fill':>5} {'items':>6}")  # fmt: skip
        for callers in CALLERS:
            show(asyncio.run(measured(url, sounds, arguments.seconds, callers=callers)))
        mean = sum(clip.seconds for clip in sounds) / len(sounds)
        capacity = max(row.rtfx for row in rows) / mean
        for share in SHARES:
            show(asyncio.run(measured(url, sounds, arguments.seconds, rate=share * capacity)))
    print(
        json.dumps({"ready_seconds": round(ready, 1), **health, "bound_rtfx": bound, "rows": list(map(asdict, rows))})
    )


if __name__ == "__main__":
    main()
