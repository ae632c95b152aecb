"""Knows how fast a served model answers over real HTTP, from another process. Knows nothing of the server's insides.

    make bench
    .venv/bin/python -m scripts.bench.server --model build/parakeet-0.6b-random.nemo --seconds 60

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
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import httpx
import numpy as np
import soundfile

ROOT = Path(__file__).parents[2]
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
    """One line of the table.

    rtfx: seconds of audio recognized in a second, by the server's count: requests that wait longer than the load lasts
    would be missed otherwise. What the detector took for silence is not among them, as it is not in the bound.
    """

    load: str
    requests: int
    errors: int
    rtfx: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    fill: float
    items: float


def clips(shortest: float = SHORTEST, longest: float = LONGEST) -> list[Clip]:
    """Pieces of the sample as 16-bit wav files, always the same."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    pick = random.Random(0)
    made = []
    for _ in range(CLIPS):
        length = int(pick.uniform(shortest, longest) * rate)
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
    settings = {"STT_LOG_LEVEL": "warning", "STT_MAX_AUDIO_SECONDS": "100000"}
    environment = {**os.environ, **settings, **({"STT_MODEL": model} if model else {})}
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
    """One load of `seconds`, the first quarter of which is not counted; with neither callers nor rate, others' load."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=callers or 64)
    async with httpx.AsyncClient(timeout=900, limits=limits) as client:
        load = Load(client, url, sounds, seconds)

        async def counters() -> tuple[dict[str, float], dict[str, float]]:
            await asyncio.sleep(load.counting_from - time.monotonic())
            before = await asyncio.to_thread(counted, url)
            await asyncio.sleep(load.until - time.monotonic())
            return before, await asyncio.to_thread(counted, url)

        if callers or rate:
            (before, after), _ = await asyncio.gather(counters(), load.closed(callers) if callers else load.open(rate))
        else:
            before, after = await counters()

    def delta(name: str) -> float:
        return after[name] - before[name]

    batches = max(1.0, delta("stt_batch_items_count"))
    delays = load.delays or [float("nan")]
    p50, p95, p99 = (round(float(value) * 1000, 1) for value in np.percentile(delays, [50, 95, 99]))
    return Row(
        load=f"{callers} callers" if callers else f"{rate:.1f} a second",
        requests=len(load.delays),
        errors=load.errors,
        rtfx=round(delta("stt_inference_audio_seconds_total") / (load.until - load.counting_from), 1),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        fill=round(delta("stt_batch_fill_sum") / batches, 3),
        items=round(delta("stt_batch_items_sum") / batches, 1),
    )


def overhead(url: str, requests: int = 100) -> dict[str, float]:
    """Where the time of one idle caller's 5 s clip goes: medians in ms, by the server's own count of each request."""
    (clip,) = clips(shortest=5.0, longest=5.0)[:1]
    sums = {
        "total": 'stt_request_seconds_sum{route="/v1/audio/transcriptions"}',
        "recognizer": "stt_inference_seconds_sum",
        "detector": "stt_detect_seconds_sum",
        "decoding": "stt_decode_seconds_sum",
    }
    rows: list[dict[str, float]] = []
    with httpx.Client() as client:
        for number in range(requests + 10):
            before = counted(url)
            client.post(
                f"{url}/v1/audio/transcriptions", files={"file": ("a.wav", clip.data)}, data={"model": "whisper-1"}
            ).raise_for_status()
            after = counted(url)
            if number >= 10:
                rows.append({name: 1000 * (after[key] - before[key]) for name, key in sums.items()})
    for row in rows:
        row["all but the networks"] = row["total"] - row["recognizer"] - row["detector"]
    return {name: round(float(np.median([row[name] for row in rows])), 1) for name in rows[0]}


def long_file(hours: float) -> bytes:
    """An mp3 of so many hours: the sample's frames again and again."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    out = io.BytesIO()
    with av.open(out, "w", format="mp3", options={"write_xing": "0"}) as file:
        stream = file.add_stream("libmp3lame", rate=rate, options={"b": "32k"}, layout="mono")
        frame = av.AudioFrame.from_ndarray(samples[None], format="s16p", layout="mono")
        frame.sample_rate = rate
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size)
        for part in [*resampler.resample(frame), *resampler.resample(None)]:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    again: int = round(hours * 3600 * rate / len(samples))
    return out.getvalue() * again


@asynccontextmanager
async def streaming(url: str, hours: float) -> AsyncIterator[None]:
    """One file of so many hours is being transcribed, from its first words on and longer than the context lasts."""
    data = await asyncio.to_thread(long_file, hours)
    begun = asyncio.Event()
    async with httpx.AsyncClient(timeout=None) as client:

        async def upload() -> None:
            form, path = {"model": "whisper-1", "stream": "true"}, f"{url}/v1/audio/transcriptions"
            async with client.stream("POST", path, files={"file": ("long.mp3", data)}, data=form) as answer:
                async for _ in answer.aiter_lines():
                    begun.set()

        uploading = asyncio.create_task(upload())
        await asyncio.wait_for(begun.wait(), 600)
        yield
        assert not uploading.done()
        uploading.cancel()
        await asyncio.wait({uploading})


async def beside_a_long_file(url: str, hours: float, seconds: float) -> tuple[Row, Row, float]:
    """Clips of 5 s, one after another, alone and beside one long file; and how long a batch of the file's takes."""
    sounds = clips(shortest=5.0, longest=5.0)
    early = await asyncio.to_thread(counted, url)
    alone = await measured(url, sounds, seconds, callers=1)
    late = await asyncio.to_thread(counted, url)
    async with streaming(url, hours):
        before = await asyncio.to_thread(counted, url)
        beside = await measured(url, sounds, seconds, callers=1)
        after = await asyncio.to_thread(counted, url)

    def batches(start: dict[str, float], end: dict[str, float]) -> tuple[float, float]:
        time_taken, count = (f"stt_inference_seconds_{kind}" for kind in ("sum", "count"))
        return end[time_taken] - start[time_taken], end[count] - start[count]

    (clip_time, clip_count), (time_taken, count) = batches(early, late), batches(before, after)
    own = beside.requests * 4 / 3  # of the clips': a quarter of the load is not counted among the requests
    batch = (time_taken - own * clip_time / clip_count) / max(1.0, count - own)
    return alone, beside, batch


async def one_long_file(url: str, hours: float, seconds: float) -> Row:
    """One file of so many hours alone: what it reaches within `seconds`, the first quarter of which is not counted."""
    async with streaming(url, hours):
        row = await measured(url, [], seconds)
    row.load = f"one file, {hours:g} h"
    return row


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
    parser.add_argument("--callers", type=int, nargs="*", default=CALLERS, help="of the closed loops")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of the best rate, for the open loops")
    parser.add_argument("--hours", type=float, help="measure 5 s clips beside one file of so many hours, and no more")
    parser.add_argument("--one-file", type=float, metavar="HOURS", help="measure one file of so many hours too, alone")
    parser.add_argument("--overhead", action="store_true", help="measure one idle caller's 5 s clip, and no more")
    arguments = parser.parse_args()
    bound = the_bound(arguments.model)
    sounds = clips()
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        print(f"{row.load:16} {row.requests:8} {row.errors:6} {row.rtfx:8.1f} {row.rtfx / bound:8.2f} "
              f"{row.p50_ms:8.0f} {row.p95_ms:8.0f} {row.p99_ms:8.0f} {row.fill:5.2f} {row.items:6.1f}",
              flush=True)  # fmt: skip

    with served(arguments.url, arguments.model) as url:
        ready = wait_until_ready(url)
        health = httpx.get(f"{url}/healthz").json()
        print(f"{health['model']} on {health['device']} in {health['precision']}; {os.cpu_count()} processors; ready "
              f"after {ready:.1f} s; the bare network on full batches: {bound:.0f} x real time\n")  # fmt: skip
        print(f"{'load':16} {'requests':>8} {'errors':>6} {'RTFx':>8} {'/ bound':>8} {'p50 ms':>8} "
              f"{'p95 ms':>8} {'p99 ms':>8} {'fill':>5} {'items':>6}")  # fmt: skip
        if arguments.hours:
            alone, beside, batch = asyncio.run(beside_a_long_file(url, arguments.hours, arguments.seconds))
            for load, row in (("5 s clips, alone", alone), ("beside the file", beside)):
                row.load = load
                show(row)
            print(f"a batch of the file's takes {1000 * batch:.0f} ms")
            arguments.callers = arguments.shares = ()
        if arguments.overhead:
            parts = overhead(url)
            print(f"a clip of 5 s, ms: {', '.join(f'{name} {value}' for name, value in parts.items())}")
            arguments.callers = arguments.shares = ()
        for callers in arguments.callers:
            show(asyncio.run(measured(url, sounds, arguments.seconds, callers=callers)))
        if arguments.one_file:
            show(asyncio.run(one_long_file(url, arguments.one_file, arguments.seconds)))
        mean = sum(clip.seconds for clip in sounds) / len(sounds)
        capacity = max((row.rtfx for row in rows if row.requests), default=0.0) / mean
        for share in arguments.shares:
            show(asyncio.run(measured(url, sounds, arguments.seconds, rate=share * capacity)))
    print(
        json.dumps({"ready_seconds": round(ready, 1), **health, "bound_rtfx": bound, "rows": list(map(asdict, rows))})
    )


if __name__ == "__main__":
    main()
