"""Measures what the host costs beside the device, with a device of endless speed in place of the model.

    python -m scripts.bench.host                      # files and live sessions
    python -m scripts.bench.host --live 50 75         # so many live sessions, 15 s each
    python -m scripts.bench.host --files --short      # a tenth of the requests

The clients are in this process. Processor time is that of the service's processes only, which other work on the machine
hardly changes; requests a second and delays depend on it. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import time
import wave
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import av
import httpx
import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import soundfile
from websockets.asyncio.client import connect

from scripts.bench.serving import SAMPLE, serve, wait_until_ready
from scripts.bench.streaming import percentiles_ms

TARGET = "scripts.bench.host.endless:ParakeetSTT"
RATE = 16_000
FROM = 5 * RATE  # of the sample, where the clips begin
FRAME_SECONDS = 0.02
LIVE_SECONDS = 15.0


@dataclass(frozen=True)
class Load:
    """Clips of one kind, sent by so many callers at once."""

    container: str
    seconds: int
    callers: int
    requests: int


FILES = (
    Load("wav", 10, 1, 60), Load("wav", 10, 16, 300), Load("wav", 2, 64, 500), Load("mp3", 10, 64, 300),
    Load("mp3", 60, 16, 60),
)  # fmt: skip


@dataclass(frozen=True)
class FileRow:
    """host_ms, front_ms: processor time of a request, in all processes and in the largest one. Times in ms."""

    container: str
    seconds: int
    callers: int
    requests_per_second: float
    rtfx: float
    host_ms: float
    front_ms: float
    p50: float
    p95: float


@dataclass(frozen=True)
class LiveRow:
    """host_ms, front_ms: processor time of a second of one session. finals after the end of speech; times in ms."""

    sessions: int
    host_ms: float
    front_ms: float
    final_p50: float
    final_p95: float
    behind: float


class Clock:
    """Processor time of the service's processes."""

    def __init__(self) -> None:
        self._before = self._read()

    def read(self) -> tuple[float, float]:
        """Seconds since the beginning: of all processes, and of the one with most."""
        now = self._read()
        spent = [seconds - self._before.get(pid, 0.0) for pid, seconds in now.items()]
        return sum(spent), max(spent)

    @staticmethod
    def _read() -> dict[int, float]:
        found: dict[int, float] = {}
        for process in psutil.Process().children(recursive=True):
            try:
                times = process.cpu_times()
            except psutil.Error:
                continue  # it has ended
            found[process.pid] = times.user + times.system + times.children_user + times.children_system
        return found


def clip(samples: npt.NDArray[np.int16], load: Load) -> bytes:
    """A clip of the sample as a file."""
    part = samples[FROM : FROM + load.seconds * RATE]
    out = io.BytesIO()
    if load.container == "wav":
        with wave.open(out, "wb") as file:
            file.setnchannels(1)
            file.setsampwidth(2)
            file.setframerate(RATE)
            file.writeframes(part.tobytes())
        return out.getvalue()
    with av.open(out, "w", format="mp3") as container:
        stream = container.add_stream("libmp3lame", rate=RATE, layout="mono")
        frame = av.AudioFrame.from_ndarray(part[None], format="s16p", layout="mono")
        frame.sample_rate = RATE
        resampler = av.AudioResampler(format=stream.format, layout="mono", rate=RATE, frame_size=stream.frame_size)
        for converted in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(converted))
        container.mux(stream.encode(None))
    return out.getvalue()


async def measure_files(url: str, data: bytes, load: Load) -> FileRow:
    """Send a clip again and again."""
    delays: list[float] = []
    limits = httpx.Limits(max_connections=None)
    async with httpx.AsyncClient(base_url=url, timeout=300, limits=limits) as client:

        async def send(requests: Iterator[int]) -> None:
            for _ in requests:
                began = time.perf_counter()
                answer = await client.post(
                    "/v1/audio/transcriptions", files={"file": (f"a.{load.container}", data)},
                    data={"model": "whisper-1"},
                )  # fmt: skip
                answer.raise_for_status()
                delays.append(time.perf_counter() - began)

        async def send_all(count: int) -> None:
            requests = iter(range(count))
            await asyncio.gather(*(send(requests) for _ in range(load.callers)))

        await send_all(2 * load.callers)  # workers are forked, caches are filled
        delays.clear()
        clock, began = Clock(), time.perf_counter()
        await send_all(load.requests)
        elapsed = time.perf_counter() - began
    host, front = clock.read()
    p50, p95 = percentiles_ms(delays, 50, 95)
    rate = load.requests / elapsed
    each = 1000 / load.requests
    return FileRow(load.container, load.seconds, load.callers, round(rate, 1), round(rate * load.seconds, 1),
                   round(each * host, 2), round(each * front, 2), p50, p95)  # fmt: skip


async def measure_live(url: str, samples: npt.NDArray[np.int16], sessions: int) -> LiveRow:
    """Run live sessions in real time, in frames of 20 ms, with partials."""
    data = np.tile(samples, 2).tobytes()
    frame = round(2 * RATE * FRAME_SECONDS)
    delays: list[float] = []

    async def speak(number: int) -> float:
        await asyncio.sleep(1.5 * number / sessions)
        async with connect(f"{url.replace('http', 'ws', 1)}/ws?partials=true", proxy=None, max_queue=None) as socket:
            began, count = time.perf_counter(), 0

            async def receive() -> None:
                async for message in socket:
                    event = json.loads(message)
                    if event["type"] == "final":
                        delays.append(time.perf_counter() - began - event["end"])

            receiving = asyncio.create_task(receive())
            while time.perf_counter() - began < LIVE_SECONDS:
                await socket.send(data[count * frame : (count + 1) * frame])
                count += 1
                await asyncio.sleep(max(0.0, began + count * FRAME_SECONDS - time.perf_counter()))
            behind = time.perf_counter() - began - count * FRAME_SECONDS
            await socket.send(json.dumps({"type": "end"}))
            await asyncio.wait_for(receiving, 60)
            return behind

    clock = Clock()
    behind = await asyncio.gather(*map(speak, range(sessions)))
    host, front = clock.read()
    p50, p95 = percentiles_ms(delays, 50, 95)
    each = 1000 / (sessions * LIVE_SECONDS)
    return LiveRow(sessions, round(each * host, 2), round(each * front, 2), p50, p95, round(1000 * max(behind), 1))


@contextmanager
def endless_service(detector: str, fronts: int) -> Iterator[str]:
    """A running service with an endless device. detector: where it is, device or cpu."""
    # Batches of a fast GPU's size.
    changes = {"ENDLESS_DETECTOR": detector, "STT_FRONTS": str(fronts), "STT_BATCH_SECONDS": "1140",
               "STT_MAX_SESSIONS": "10000"}  # fmt: skip
    with serve(None, None, target=TARGET, changes=changes) as address:
        wait_until_ready(address)
        yield address


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", action="store_true", help="files only")
    parser.add_argument("--live", type=int, nargs="*", metavar="SESSIONS", help="live sessions only, so many")
    parser.add_argument("--detector", choices=("device", "cpu"), default="device", help="where speech is detected")
    parser.add_argument("--fronts", type=int, default=1, help="front processes")
    parser.add_argument("--short", action="store_true", help="a tenth of the requests")
    arguments = parser.parse_args()
    samples, _ = soundfile.read(SAMPLE, dtype="int16")
    files: list[FileRow] = []
    live: list[LiveRow] = []
    with endless_service(arguments.detector, arguments.fronts) as url:
        print(f"endless device; {os.cpu_count()} processors, the clients on them too; times in ms\n")
        for load in FILES if arguments.live is None else ():
            requests = max(load.callers, load.requests // (10 if arguments.short else 1))
            files.append(
                asyncio.run(measure_files(url, clip(samples, load), Load(**{**asdict(load), "requests": requests})))
            )
            print("  ".join(f"{name} {value}" for name, value in asdict(files[-1]).items()), flush=True)
        for sessions in () if arguments.files else arguments.live or (25, 50, 75):
            live.append(asyncio.run(measure_live(url, samples, sessions)))
            print("  ".join(f"{name} {value}" for name, value in asdict(live[-1]).items()), flush=True)
    print(json.dumps({"files": list(map(asdict, files)), "live": list(map(asdict, live))}))


if __name__ == "__main__":
    main()
