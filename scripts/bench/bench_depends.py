"""Knows how the model is best reached from a route: in its process, or through BentoML. Does not know the real service.

    .venv/bin/python -m scripts.bench.bench_depends

The same route, which answers a 16-bit wav with its text, over three arrangements, each started in turn:
InProcess, the runner of parakeet_stt/device/batcher.py in the route's own process; BentoBatching, the model in a second
BentoML service behind `bentoml.depends`, batched by `@bentoml.api(batchable=True)`; RunnerBehind, our runner in that
second service. Drives each over HTTP from this process. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import logging
import math
import os
import random
import signal
import socket
import subprocess
import sys
import time
import wave
from collections.abc import AsyncGenerator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any, Protocol

import bentoml
import httpx
import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import soundfile
from fastapi import Depends, FastAPI, Request
from fastapi.responses import PlainTextResponse

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import Pace, budget, measured
from parakeet_stt.device.batcher import Runner
from parakeet_stt.engines import catalogue
from parakeet_stt.errors import RecognitionError
from parakeet_stt.protocols import LiveRecognizer, Step, Stepped
from parakeet_stt.server.http.disconnects import unless_gone
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "models" / "parakeet-tdt-tiny" / "samples" / "two-minutes.flac"
SHORTEST, LONGEST = 1.0, 12.0  # seconds of a clip
CLIPS = 200
CALLERS = (1, 16, 64, 1)  # the last: how long a single caller waits just after a crowd
CROWD, POISONED = 32, 5  # callers at once, one of them poisoned, and how often
LEAVERS, STAY_SECONDS = 128, 0.5  # callers with the longest clip, and when all of them hang up
SETTLED_SECONDS = 8  # without another batch, and the model is taken to be done
THREADS = max(1, (os.cpu_count() or 2) // 2)  # of torch; the rest is for HTTP and this process
# max_batch_size: of 8, 16, 32 and 64 the best for BentoBatching. max_latency_ms: BentoML's default; it is the age at
# which a waiting request is dropped, not a time to wait, and ours drops none here either.
MAX_BATCH, MAX_LATENCY_MS = int(os.environ.get("BENCH_MAX_BATCH", "8")), 60_000
RUNNER_MAX_BATCH = 64  # the service's default
LOUD = 0.99  # a clip that begins so loud is the poisoned one


# What is served.


class Observed:
    """The bundled model, which counts what it decodes and fails on any batch with a poisoned item."""

    def __init__(self) -> None:
        from parakeet_stt.engines.parakeet import Parakeet

        self._model = Parakeet(catalogue.resolve(None).path, device="cpu", threads=THREADS)
        self._model.warm_up(RUNNER_MAX_BATCH, LONGEST)
        self.counts = {"batches": 0.0, "items": 0.0, "seconds": 0.0, "padded": 0.0}

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        if any(audio.samples[:8].min() > LOUD for audio in batch):
            raise RecognitionError("poisoned")
        found = self._model.recognize(batch, phrases)
        lengths = [audio.duration for audio in batch]
        added = {"batches": 1, "items": len(batch), "seconds": sum(lengths), "padded": max(lengths) * len(batch)}
        self.counts = {name: count + added[name] for name, count in self.counts.items()}
        return found

    def step(self, batch: Sequence[Step], phrases: Sequence[Phrases] = ()) -> list[Stepped]:
        return self._model.step(batch, phrases)


def runner_over(model: LiveRecognizer, device: ThreadPoolExecutor) -> Runner:
    """Our runner, set up as the service sets it up, except that it refuses nobody."""
    cost = device.submit(measured, model, most_items=RUNNER_MAX_BATCH).result()
    pace = Pace(cost, seconds=budget(cost, longest=LONGEST, room=None), items=RUNNER_MAX_BATCH)
    return Runner(model, pace, device=device, max_waiting=math.inf, metrics=Metrics(), on_lost=lambda lost: None)


def audio_of(pcm: bytes) -> Audio:
    return Audio(np.frombuffer(pcm, np.int16).astype(np.float32) / np.float32(32768))


def text_of(hypothesis: Hypothesis) -> str:
    return "".join(token.piece for token in hypothesis.tokens).replace("▁", " ").strip()


async def text_from(runner: Runner, pcm: bytes) -> str:
    """The text of one utterance."""

    async def arriving() -> AsyncGenerator[Audio, None]:
        yield audio_of(pcm)

    return " ".join([text_of(one) async for one in runner.recognize(arriving())])


class Arrangement(Protocol):
    """What the route asks of whichever service it is mounted on."""

    async def text(self, pcm: bytes) -> str: ...
    async def counts(self) -> dict[str, float]: ...


Mounted = Annotated[Arrangement, Depends(bentoml.get_current_service)]
app = FastAPI()


@app.post("/text", response_class=PlainTextResponse)
async def text(request: Request, service: Mounted) -> str:
    """The text of a 16-bit wav."""
    with wave.open(io.BytesIO(await request.body())) as file:
        pcm = file.readframes(file.getnframes())
    return await unless_gone(request, service.text(pcm))


@app.get("/counts")
async def counts(service: Mounted) -> dict[str, float]:
    """What the model has decoded so far."""
    return await service.counts()


COMMON = {"workers": 1, "traffic": {"timeout": 900}, "metrics": {"enabled": False}}
# Without it the client of `depends` renews its session every 100 requests, under those that are still in flight.
BEHIND = {**COMMON, "runner_connection": {"max_requests": 10**9, "max_age": 1e9}}


class OverRunner:
    """The model behind our runner, both in this process."""

    def __init__(self) -> None:
        device = ThreadPoolExecutor(1)
        self.model = device.submit(Observed).result()
        self.runner = runner_over(self.model, device)

    @bentoml.on_shutdown  # type: ignore[untyped-decorator]
    def close(self) -> None:
        self.runner.close()


class OverDepends:
    """A model in another process."""

    behind: Any

    async def text(self, pcm: bytes) -> str:
        answers: list[str] = await self.behind.to_async.texts([pcm])
        return answers[0]

    async def counts(self) -> dict[str, float]:
        return dict(await self.behind.to_async.counts())


@bentoml.service(**COMMON)
@bentoml.asgi_app(app)
class InProcess(OverRunner):
    async def text(self, pcm: bytes) -> str:
        return await text_from(self.runner, pcm)

    async def counts(self) -> dict[str, float]:
        return self.model.counts


@bentoml.service(**BEHIND)
class BatchedModel:
    def __init__(self) -> None:
        self.device = ThreadPoolExecutor(1)  # as in our runner, one thread loads the model and runs it
        self.model = self.device.submit(Observed).result()

    @bentoml.api(batchable=True, max_batch_size=MAX_BATCH, max_latency_ms=MAX_LATENCY_MS)  # type: ignore[untyped-decorator]
    async def texts(self, pcms: list[bytes]) -> list[str]:
        batch = [audio_of(pcm) for pcm in pcms]
        found = await asyncio.get_running_loop().run_in_executor(self.device, self.model.recognize, batch)
        return list(map(text_of, found))

    @bentoml.api  # type: ignore[untyped-decorator]
    async def counts(self) -> dict[str, float]:
        return self.model.counts


@bentoml.service(**COMMON)
@bentoml.asgi_app(app)
class BentoBatching(OverDepends):
    behind = bentoml.depends(BatchedModel)


@bentoml.service(**BEHIND)
class RunnerModel(OverRunner):
    @bentoml.api  # type: ignore[untyped-decorator]
    async def texts(self, pcms: list[bytes]) -> list[str]:
        return [await text_from(self.runner, pcm) for pcm in pcms]

    @bentoml.api  # type: ignore[untyped-decorator]
    async def counts(self) -> dict[str, float]:
        return self.model.counts


@bentoml.service(**COMMON)
@bentoml.asgi_app(app)
class RunnerBehind(OverDepends):
    behind = bentoml.depends(RunnerModel)


# What drives it.


@dataclass(frozen=True)
class Clip:
    data: bytes
    seconds: float


@dataclass
class Row:
    """One line of the table. items: in a batch, on average. fill: real over padded seconds of all batches."""

    arrangement: str
    callers: int
    requests: int
    errors: int
    per_second: float
    rtfx: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    items: float
    fill: float


def as_wav(samples: npt.NDArray[np.int16]) -> Clip:
    out = io.BytesIO()
    soundfile.write(out, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return Clip(out.getvalue(), len(samples) / SAMPLE_RATE)


def clips(count: int, shortest: float, longest: float) -> list[Clip]:
    """Pieces of the sample, always the same."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    assert rate == SAMPLE_RATE
    pick = random.Random(0)
    lengths = [int(pick.uniform(shortest, longest) * rate) for _ in range(count)]
    starts = [pick.randrange(len(samples) - length) for length in lengths]
    return [as_wav(samples[start : start + length]) for start, length in zip(starts, lengths, strict=True)]


@contextmanager
def served(name: str, max_batch: int) -> Iterator[str]:
    """The address of an arrangement that is ready."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    bento = str(Path(sys.executable).with_name("bentoml"))
    command = [bento, "serve", f"scripts.bench_depends:{name}", "--host", "127.0.0.1", "--port", str(port)]
    environment = {**os.environ, "BENTOML_DO_NOT_TRACK": "True", "BENCH_MAX_BATCH": str(max_batch)}
    process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        yield url
    finally:
        family = [psutil.Process(process.pid), *psutil.Process(process.pid).children(recursive=True)]
        process.terminate()
        for left_over in psutil.wait_procs(family, timeout=15)[1]:
            left_over.kill()


def wait_until_ready(url: str) -> None:
    """Until the model has been asked: /readyz, asked while what it depends on still loads, hangs in 1.4.39."""
    until = time.monotonic() + 90
    while time.monotonic() < until:
        with suppress(httpx.TransportError):
            if httpx.get(f"{url}/counts", timeout=2).status_code == 200:
                return
        time.sleep(0.2)
    sys.exit(f"{url} was not ready in time")


async def is_answered(client: httpx.AsyncClient, clip: Clip) -> bool:
    try:
        return (await client.post("/text", content=clip.data)).status_code == 200
    except httpx.TransportError:
        return False


async def counted(client: httpx.AsyncClient) -> dict[str, float]:
    """What the model has decoded so far."""
    found: dict[str, float] = (await client.get("/counts")).json()
    return found


async def closed_loop(client: httpx.AsyncClient, name: str, callers: int, seconds: float) -> Row:
    """So many callers, each of whom asks again as soon as it has its answer; the first third is not counted."""
    sounds, pick = clips(CLIPS, SHORTEST, LONGEST), random.Random(1)
    counting_from, until = time.monotonic() + seconds / 3, time.monotonic() + seconds
    delays, heard, errors = [], 0.0, 0

    async def caller() -> None:
        nonlocal heard, errors
        while (began := time.monotonic()) < until:
            clip = pick.choice(sounds)
            good = await is_answered(client, clip)
            if counting_from <= time.monotonic() <= until:
                errors += not good
                heard += clip.seconds * good
                delays.extend([time.monotonic() - began] * good)

    before = await counted(client)
    await asyncio.gather(*(caller() for _ in range(callers)))
    after = await counted(client)
    done = {key: after[key] - before[key] for key in after}
    time_counted = until - counting_from
    p50, p95, p99 = (round(float(value) * 1000, 1) for value in np.percentile(delays or [math.nan], [50, 95, 99]))
    return Row(name, callers, len(delays), errors, round(len(delays) / time_counted, 1), round(heard / time_counted, 1),
               p50, p95, p99, round(done["items"] / done["batches"], 1),
               round(done["seconds"] / done["padded"], 2))  # fmt: skip


async def poisoned(client: httpx.AsyncClient) -> int:
    """How many callers get an error when, each time, one of a crowd sends what the model fails on."""
    crowd = clips(CROWD - 1, SHORTEST, LONGEST)
    crowd.insert(CROWD // 2, as_wav(np.full(4 * SAMPLE_RATE, 32767, np.int16)))
    errors = 0
    for _ in range(POISONED):
        errors += (await asyncio.gather(*(is_answered(client, clip) for clip in crowd))).count(False)
    return errors


async def left(client: httpx.AsyncClient, url: str) -> tuple[float, float]:
    """The seconds of audio sent by callers who all hang up, and those decoded for them."""
    sounds = clips(LEAVERS, LONGEST, LONGEST)
    before = now = await counted(client)
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=httpx.Limits(max_connections=None)) as leaving:
        tasks = [asyncio.create_task(is_answered(leaving, clip)) for clip in sounds]
        await asyncio.sleep(STAY_SECONDS)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    last: dict[str, float] = {}
    while last != now:
        last = now
        await asyncio.sleep(SETTLED_SECONDS)
        now = await counted(client)
    return sum(clip.seconds for clip in sounds), now["seconds"] - before["seconds"]


async def driven(url: str, name: str, seconds: float) -> dict[str, Any]:
    """Everything about one arrangement; prints its rows."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=max(CALLERS))
    async with httpx.AsyncClient(base_url=url, timeout=60, limits=limits) as client:
        rows = []
        for callers in CALLERS:
            row = await closed_loop(client, name, callers, seconds)
            rows.append(row)
            print(f"{name:14}{callers:8}{row.per_second:12.1f}{row.rtfx:8.0f}{row.p50_ms:8.0f}{row.p95_ms:8.0f}"
                  f"{row.p99_ms:8.0f}{row.errors:8}{row.items:8.1f}{row.fill:6.2f}", flush=True)  # fmt: skip
        errors = await poisoned(client)
        sent, decoded = await left(client, url)
    print(f"{name:14}{POISONED} poisoned requests, each in a crowd of {CROWD}: {errors} callers got an error; "
          f"{decoded:.0f} s decoded of the {sent:.0f} s whose callers left\n", flush=True)  # fmt: skip
    return {"rows": list(map(asdict, rows)), "errors_of_poisoned": errors, "left_decoded_seconds": round(decoded)}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=9, help="of each load")
    parser.add_argument("--max-batch", type=int, default=MAX_BATCH, help="max_batch_size of BentoBatching")
    names = ["InProcess", "BentoBatching", "RunnerBehind"]
    parser.add_argument("arrangements", nargs="*", default=names, help=f"of {', '.join(names)}")
    arguments = parser.parse_args()
    logging.getLogger("httpx").setLevel(logging.WARNING)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the servers are ended too
    print(f"{THREADS} torch threads; max_batch_size {arguments.max_batch}, max_latency_ms {MAX_LATENCY_MS}\n")
    print(f"{'':14}{'callers':>8}{'requests/s':>12}{'RTFx':>8}{'p50 ms':>8}{'p95 ms':>8}{'p99 ms':>8}{'errors':>8}"
          f"{'items':>8}{'fill':>6}")  # fmt: skip
    found = {}
    for name in arguments.arrangements:
        with served(name, arguments.max_batch) as url:
            found[name] = asyncio.run(driven(url, name, arguments.seconds))
    print(json.dumps({"threads": THREADS, "max_batch": arguments.max_batch, "arrangements": found}))


if __name__ == "__main__":
    main()
