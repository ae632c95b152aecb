"""Measures how fast a served model answers requests over real HTTP, from another process.

    python -m scripts.bench.server                    # or: make bench
    python -m scripts.bench.server --model build/parakeet-0.6b-random.nemo --seconds 60

The clips have 1 to 30 s and are cut from the bundled long sample. Closed loop: N callers, each of which sends its next
request when it has its answer. Open loop: requests at random moments, at a share of the rate that the closed loop
reached; they do not wait for answers. Each speed is printed beside the bound: the speed of the bare network on full
batches, as scripts/bench/engine.py measures it here. The loads are those of `parakeet bench`, which measures any
server; this adds what only this server's metrics say. Starts the service as `make serve` does, unless --url names a
running one. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass

import av
import httpx
import numpy as np
import soundfile

from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.measure.api import Clients, Target
from parakeet_stt.measure.clips import Clip, decode
from parakeet_stt.measure.clips import cut_clips as cut_from
from parakeet_stt.measure.load import Load, percentiles_ms
from scripts.bench.serving import (
    ROOT,
    SAMPLE,
    add_server_arguments,
    describe,
    read_counters,
    read_health,
    serve,
    wait_until_ready,
)

ROUTE = "/v1/audio/transcriptions"
SHORTEST, LONGEST = 1.0, 30.0
CLIPS = 200
CALLERS = (1, 8, 64, 256)
SHARES = (0.5, 0.8, 1.2)  # of the closed loop's best rate


@dataclass
class Row:
    """One line of the table.

    rtfx: seconds of audio decoded in a second, by the server's count: like the bound, without audio in which the
    detector finds no speech. requests: that began in the time that counts and have an answer. p50_ms, p95_ms, p99_ms:
    from a request to its answer. fill: real over padded seconds of a batch. items: of a batch.
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


def cut_clips(shortest: float = SHORTEST, longest: float = LONGEST) -> list[Clip]:
    """Clips of the sample as 16-bit wav files, the same in each run. shortest, longest: in seconds."""
    return cut_from(decode(SAMPLE.read_bytes()), CLIPS, shortest, longest)


async def measure_load(url: str, clips: list[Clip], seconds: float, *, callers: int = 0, rate: float = 0) -> Row:
    """Measure one load of `seconds`, the first quarter of which is not counted.

    callers: of a closed loop. rate: of an open loop, a second. With neither, the load of other clients is measured.
    """
    async with Clients(timeout=900) as clients:
        load = Load(clients, Target("served", f"{url}/v1"), clips, seconds)

        async def read_twice() -> tuple[dict[str, float], dict[str, float]]:
            await asyncio.sleep(load.counting_from - time.monotonic())
            before = await asyncio.to_thread(read_counters, url)
            await asyncio.sleep(load.until - time.monotonic())
            return before, await asyncio.to_thread(read_counters, url)

        if callers or rate:
            requests = load.run_closed(callers) if callers else load.run_open(rate)
            (before, after), _ = await asyncio.gather(read_twice(), requests)
        else:
            before, after = await read_twice()

    def delta(name: str) -> float:
        return after[name] - before[name]

    batches = max(1.0, delta("stt_batch_items_count"))
    found = load.sum_up((), callers=callers, rate=rate)
    p50, p95, p99 = percentiles_ms(found.delays, 50, 95, 99)
    return Row(
        load=found.load,
        requests=len(found.delays),
        errors=found.failed,
        rtfx=round(delta("stt_inference_audio_seconds_total") / (load.until - load.counting_from), 1),
        p50_ms=p50,
        p95_ms=p95,
        p99_ms=p99,
        fill=round(delta("stt_batch_fill_sum") / batches, 3),
        items=round(delta("stt_batch_items_sum") / batches, 1),
    )


def measure_overhead(url: str, requests: int = 100) -> dict[str, float]:
    """What the time of a 5 s clip consists of: medians in ms by the server's counters, one request at a time.

    Where media workers detect speech, the counters have that under decoding; then it is measured here.
    """
    clip = cut_clips(shortest=5.0, longest=5.0)[0]
    sums = {
        "total": f'stt_request_seconds_sum{{route="{ROUTE}"}}',
        "recognizer": "stt_inference_seconds_sum",
        "detector": "stt_detect_seconds_sum",
        "decoding": "stt_decode_seconds_sum",
    }
    rows: list[dict[str, float]] = []
    with httpx.Client() as client:
        for number in range(requests + 10):
            before = read_counters(url)
            client.post(
                f"{url}{ROUTE}", files={"file": ("a.wav", clip.data)}, data={"model": "whisper-1"}
            ).raise_for_status()
            after = read_counters(url)
            if number >= 10:
                rows.append({name: 1000 * (after[key] - before[key]) for name, key in sums.items()})
    detected = 0.0 if rows[0]["detector"] else detect_ms(clip.data)
    for row in rows:
        row["detector"] += detected
        row["decoding"] -= detected
        row["all but the networks"] = row["total"] - row["recognizer"] - row["detector"]
    return {name: round(float(np.median([row[name] for row in rows])), 1) for name in rows[0]}


def detect_ms(data: bytes, times: int = 50) -> float:
    """What detecting speech in a wav file takes in this process: the median in ms."""
    samples, _ = soundfile.read(io.BytesIO(data), dtype="float32")
    detector, found = OnnxDetector(), []
    for _ in range(times):
        began = time.perf_counter()
        DetectorStream(detector).push(samples)
        found.append(1000 * (time.perf_counter() - began))
    return float(np.median(found))


def make_long_file(hours: float) -> bytes:
    """An mp3 of so many hours: the frames of the sample, repeated."""
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
    repeats: int = round(hours * 3600 * rate / len(samples))
    return out.getvalue() * repeats


@asynccontextmanager
async def transcribe_long_file(url: str, hours: float) -> AsyncIterator[None]:
    """The server transcribes one file of so many hours while the context lasts. Entered at the file's first words."""
    data = await asyncio.to_thread(make_long_file, hours)
    begun = asyncio.Event()
    async with httpx.AsyncClient(timeout=None) as client:

        async def upload() -> None:
            form = {"model": "whisper-1", "stream": "true"}
            async with client.stream("POST", f"{url}{ROUTE}", files={"file": ("long.mp3", data)}, data=form) as answer:
                async for _ in answer.aiter_lines():
                    begun.set()

        uploading = asyncio.create_task(upload())
        await asyncio.wait_for(begun.wait(), 600)
        yield
        assert not uploading.done()
        uploading.cancel()
        await asyncio.wait({uploading})


async def measure_beside_file(url: str, hours: float, seconds: float) -> tuple[Row, Row, float]:
    """Clips of 5 s, one after another, alone and beside one long file; and the mean seconds of a batch of the file."""
    clips = cut_clips(shortest=5.0, longest=5.0)
    early = await asyncio.to_thread(read_counters, url)
    alone = await measure_load(url, clips, seconds, callers=1)
    late = await asyncio.to_thread(read_counters, url)
    async with transcribe_long_file(url, hours):
        before = await asyncio.to_thread(read_counters, url)
        beside = await measure_load(url, clips, seconds, callers=1)
        after = await asyncio.to_thread(read_counters, url)

    def count_batches(start: dict[str, float], end: dict[str, float]) -> tuple[float, float]:
        time_taken, count = (f"stt_inference_seconds_{kind}" for kind in ("sum", "count"))
        return end[time_taken] - start[time_taken], end[count] - start[count]

    (clip_time, clip_count), (time_taken, count) = count_batches(early, late), count_batches(before, after)
    own = beside.requests * 4 / 3  # batches of the clips; `requests` leaves out the first quarter of the load
    batch = (time_taken - own * clip_time / clip_count) / max(1.0, count - own)
    return alone, beside, batch


async def measure_long_file(url: str, hours: float, seconds: float) -> Row:
    """The speed of one file of so many hours, alone, during `seconds`; the first quarter is not counted."""
    async with transcribe_long_file(url, hours):
        row = await measure_load(url, [], seconds)
    row.load = f"one file, {hours:g} h"
    return row


def measure_bound(model: str | None) -> float:
    """The speed of the bare network, which scripts/bench/engine.py measures in a process of its own."""
    command = [sys.executable, "-m", "scripts.bench.engine", "--short", "--only", "bound"]
    command += ["--model", model] if model else []
    done = subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    bound: float = json.loads(done.stdout.splitlines()[-1])["best_rtfx"]["bound"]
    return bound


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--seconds", type=float, default=10, help="of each load")
    parser.add_argument("--callers", type=int, nargs="*", default=CALLERS, help="of the closed loops")
    parser.add_argument("--shares", type=float, nargs="*", default=SHARES, help="of the best rate, for the open loops")
    parser.add_argument("--hours", type=float, help="measure only 5 s clips beside one file of so many hours")
    parser.add_argument("--one-file", type=float, metavar="HOURS", help="also measure one file of so many hours, alone")
    parser.add_argument("--overhead", action="store_true", help="measure only one idle caller's 5 s clip")
    arguments = parser.parse_args()
    bound = measure_bound(arguments.model)
    clips = cut_clips()
    rows: list[Row] = []

    def show(row: Row) -> None:
        rows.append(row)
        print(f"{row.load:16} {row.requests:8} {row.errors:6} {row.rtfx:8.1f} {row.rtfx / bound:8.2f} "
              f"{row.p50_ms:8.0f} {row.p95_ms:8.0f} {row.p99_ms:8.0f} {row.fill:5.2f} {row.items:6.1f}",
              flush=True)  # fmt: skip

    with serve(arguments.url, arguments.model) as url:
        ready = wait_until_ready(url)
        health = read_health(url)
        print(f"{describe(health)}; ready after {ready:.1f} s; "
              f"the bare network on full batches: {bound:.0f} x real time\n")  # fmt: skip
        print(f"{'load':16} {'requests':>8} {'errors':>6} {'RTFx':>8} {'/ bound':>8} {'p50 ms':>8} "
              f"{'p95 ms':>8} {'p99 ms':>8} {'fill':>5} {'items':>6}")  # fmt: skip
        if arguments.hours:
            alone, beside, batch = asyncio.run(measure_beside_file(url, arguments.hours, arguments.seconds))
            for load, row in (("5 s clips, alone", alone), ("beside the file", beside)):
                row.load = load
                show(row)
            print(f"a batch of the file takes {1000 * batch:.0f} ms")
            arguments.callers = arguments.shares = ()
        if arguments.overhead:
            parts = measure_overhead(url)
            print(f"a clip of 5 s, ms: {', '.join(f'{name} {value}' for name, value in parts.items())}")
            arguments.callers = arguments.shares = ()
        for callers in arguments.callers:
            show(asyncio.run(measure_load(url, clips, arguments.seconds, callers=callers)))
        if arguments.one_file:
            show(asyncio.run(measure_long_file(url, arguments.one_file, arguments.seconds)))
        mean = sum(clip.seconds for clip in clips) / len(clips)
        capacity = max((row.rtfx for row in rows if row.requests), default=0.0) / mean
        for share in arguments.shares:
            show(asyncio.run(measure_load(url, clips, arguments.seconds, rate=share * capacity)))
    print(
        json.dumps({"ready_seconds": round(ready, 1), **health, "bound_rtfx": bound, "rows": list(map(asdict, rows))})
    )


if __name__ == "__main__":
    main()
