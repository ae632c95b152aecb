"""Measures what the host costs beside the device, with a device of endless speed in place of the model.

    python -m scripts.bench.host                      # files and live sessions
    python -m scripts.bench.host --live 50 75         # so many live sessions, 15 s each
    python -m scripts.bench.host --live --frame 100   # in frames of 100 ms
    python -m scripts.bench.host --files --short      # a tenth of the requests
    python -m scripts.bench.host --device             # only the device process, flooded by one front
    python -m scripts.bench.host --files --short --fronts 2 --front-share 0.15   # as root: each has a part of a core

The clients are in this process. Processor time is that of the service's processes only, which other work on the machine
hardly changes; requests a second and delays depend on it. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import io
import json
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import av
import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import soundfile
from websockets.asyncio.client import connect

from parakeet_stt.device.link import DeviceLink
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.measure.api import Clients
from parakeet_stt.measure.clips import write_wav
from parakeet_stt.measure.load import percentiles_ms
from parakeet_stt.processes.paths import Paths
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, FRAME_SAMPLES, Priority
from parakeet_stt.streaming.chunk_decoder import ChunkRules
from parakeet_stt.vad import WINDOW_SAMPLES
from scripts.bench.serving import SAMPLE, serve, wait_until_ready

TARGET = "scripts.bench.host.endless:ParakeetSTT"
RATE = 16_000
FROM = 5 * RATE  # of the sample, where the clips begin
LIVE_SECONDS = 15.0
UTTERANCES, AT_ONCE = 3000, 256
SOURCES = 500  # live sessions, of which the device process hears a window at once
CHUNK = ChunkRules()
CGROUPS, PERIOD_US = Path("/sys/fs/cgroup/cpu"), 10_000  # version 1 of Linux' control groups


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
class Spent:
    """Processor time in ms: of all processes, and of each kind."""

    host: float
    front: float
    media: float
    device: float


@dataclass(frozen=True)
class FileRow:
    """ms: processor time of a request. p50, p95: of the time to the answer, in ms."""

    container: str
    seconds: int
    callers: int
    requests_per_second: float
    rtfx: float
    ms: Spent
    p50: float
    p95: float


@dataclass(frozen=True)
class LiveRow:
    """ms: processor time of a second of one session. finals after the end of speech, behind: in ms."""

    sessions: int
    ms: Spent
    final_p50: float
    final_p95: float
    behind: float


LOOK_SECONDS = 0.5
KINDS = {"front": "worker.service", "media": "processes.media", "device": "host.endless"}


class Clock:
    """Processor time of the service's processes, of those too that end meanwhile: media workers do after 100 files."""

    def __init__(self) -> None:
        self._before = self._read()
        self._seen = dict(self._before)
        self._is_over = threading.Event()
        self._looking = threading.Thread(target=self._look, daemon=True)
        self._looking.start()

    def read(self, count: float) -> Spent:
        """Since the beginning, for each of `count` things. The clock ends."""
        self._is_over.set()
        self._looking.join()
        self._seen.update(self._read())
        spent = dict.fromkeys(("parent", *KINDS), 0.0)
        for process, (kind, seconds) in self._seen.items():
            spent[kind] += seconds - self._before.get(process, (kind, 0.0))[1]
        each = {kind: round(1000 * seconds / count, 2) for kind, seconds in spent.items()}
        return Spent(round(sum(each.values()), 2), each["front"], each["media"], each["device"])

    def _look(self) -> None:
        while not self._is_over.wait(LOOK_SECONDS):
            self._seen.update(self._read())

    @staticmethod
    def _read() -> dict[int, tuple[str, float]]:
        found: dict[int, tuple[str, float]] = {}
        for process in psutil.Process().children(recursive=True):
            try:
                command, times = " ".join(process.cmdline()), process.cpu_times()
            except psutil.Error:
                continue  # it has ended
            kinds = [kind for kind, word in KINDS.items() if word in command and " serve " not in command]
            found[process.pid] = (kinds[0] if kinds else "parent", times.user + times.system)
        return found


def clip(samples: npt.NDArray[np.int16], load: Load) -> bytes:
    """A clip of the sample as a file."""
    part = samples[FROM : FROM + load.seconds * RATE]
    if load.container == "wav":
        return write_wav(part, RATE)
    out = io.BytesIO()
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
    async with Clients(300) as clients:

        async def send(requests: Iterator[int]) -> None:
            for _ in requests:
                began = time.perf_counter()
                async with clients.one() as client:
                    answer = await client.post(
                        f"{url}/v1/audio/transcriptions", files={"file": (f"a.{load.container}", data)},
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
    spent = clock.read(load.requests)
    p50, p95 = percentiles_ms(delays, 50, 95)
    rate = load.requests / elapsed
    rtfx = round(rate * load.seconds, 1)
    return FileRow(load.container, load.seconds, load.callers, round(rate, 1), rtfx, spent, p50, p95)


async def measure_live(url: str, samples: npt.NDArray[np.int16], sessions: int, frame_seconds: float) -> LiveRow:
    """Run live sessions in real time, with partials."""
    data = np.tile(samples, 2).tobytes()
    frame = round(2 * RATE * frame_seconds)
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
                await asyncio.sleep(max(0.0, began + count * frame_seconds - time.perf_counter()))
            behind = time.perf_counter() - began - count * frame_seconds
            await socket.send(json.dumps({"type": "end"}))
            await asyncio.wait_for(receiving, 60)
            return behind

    clock = Clock()
    behind = await asyncio.gather(*map(speak, range(sessions)))
    spent = clock.read(sessions * LIVE_SECONDS)
    p50, p95 = percentiles_ms(delays, 50, 95)
    return LiveRow(sessions, spent, p50, p95, round(1000 * max(behind), 1))


def connect_to_device(samples: npt.NDArray[np.int16]) -> tuple[DeviceLink, SharedAudio]:
    """A front's link to the device process of this service, and ten seconds of audio."""
    (folder,) = {
        Path(command[3])
        for process in psutil.Process().children(recursive=True)
        if "scripts.bench.host.endless" in (command := process.cmdline())[2:3]
    }
    paths, audio = Paths(folder), SharedAudio()
    audio.append(samples[FROM : FROM + 10 * RATE].astype(np.float32) / np.float32(32768))
    link = DeviceLink(paths.device(0), paths.ledger(0))
    link.connect(lambda: None)
    link.start()
    return link, audio


async def measure_device(samples: npt.NDArray[np.int16]) -> dict[str, float]:
    """What the device process takes for an utterance of 10 s, detection and recognition, while many wait for it."""
    link, audio = connect_to_device(samples)
    windows, states = 10 * RATE // WINDOW_SAMPLES, np.zeros((1, *DETECTOR_STATE_SHAPE), np.float32)
    clip, left = audio.clip(0, 10 * RATE), iter(range(UTTERANCES))

    async def ask() -> None:
        for number in left:
            source = link.open(audio)
            await link.detect([source], [0], [windows], states)
            await link.recognize(source, clip, priority=Priority.SHORT, owner=number, phrases=())
            link.close_source(source)

    clock, began = Clock(), time.perf_counter()
    await asyncio.gather(*(ask() for _ in range(AT_ONCE)))
    elapsed, spent = time.perf_counter() - began, clock.read(UTTERANCES)
    link.close()
    return {"utterances_per_second": round(UTTERANCES / elapsed), "device_ms": spent.device}


async def measure_device_live(samples: npt.NDArray[np.int16]) -> dict[str, float]:
    """What the device process takes for a second of each of many live sessions: windows, and chunks with context."""
    link, audio = connect_to_device(samples)
    sources = [link.open(audio) for _ in range(SOURCES)]
    states = np.zeros((SOURCES, *DETECTOR_STATE_SHAPE), np.float32)
    chunk_states: list[Any] = [None] * SOURCES
    own, right = (frames * FRAME_SAMPLES for frames in (CHUNK.length or 0, CHUNK.right_context))
    rounds = (10 * RATE - right) // WINDOW_SAMPLES
    every = own / WINDOW_SAMPLES  # windows from one chunk of a session to its next

    async def decode(number: int, end: int) -> None:
        start = max(0, end - own - CHUNK.left_context * FRAME_SAMPLES)
        found = await link.decode_chunk(
            sources[number], audio.clip(start, end + right), left_context=max(0, end - own - start),
            right_context=right, state=chunk_states[number], phrases=(),
        )  # fmt: skip
        chunk_states[number] = found.state

    clock, began = Clock(), time.perf_counter()
    for place in range(rounds):
        start = place * WINDOW_SAMPLES
        due = [number for number in range(SOURCES) if (place + number) % every < 1 and start >= own]
        detecting = link.detect(sources, [start] * SOURCES, [1] * SOURCES, states)
        await asyncio.gather(detecting, *(decode(number, start) for number in due))
        states = detecting.result()[1]
    elapsed, seconds = time.perf_counter() - began, SOURCES * rounds * WINDOW_SAMPLES / RATE
    spent = clock.read(seconds)
    link.close()
    return {"session_seconds_per_second": round(seconds / elapsed), "device_live_ms": spent.device}


@contextmanager
def limited_fronts(share: float | None) -> Iterator[None]:
    """Give each front process so much of a core, as root: so two cores show what more fronts carry. None for all."""
    groups: list[Path] = []
    if share is not None:
        for process in psutil.Process().children(recursive=True):
            if KINDS["front"] in " ".join(process.cmdline()):
                groups.append(CGROUPS / f"bench-front-{process.pid}")
                groups[-1].mkdir()
                (groups[-1] / "cpu.cfs_period_us").write_text(str(PERIOD_US))
                (groups[-1] / "cpu.cfs_quota_us").write_text(str(round(share * PERIOD_US)))
                (groups[-1] / "cgroup.procs").write_text(str(process.pid))
    try:
        yield
    finally:
        for group in groups:
            for pid in (group / "cgroup.procs").read_text().split():
                (CGROUPS / "cgroup.procs").write_text(pid)
            group.rmdir()


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
    parser.add_argument("--frame", type=int, default=20, metavar="MS", help="length of live sessions' frames")
    parser.add_argument("--device", action="store_true", help="only the device process, by itself")
    parser.add_argument("--detector", choices=("device", "cpu"), default="device", help="where speech is detected")
    parser.add_argument("--fronts", type=int, default=1, help="front processes")
    parser.add_argument("--front-share", type=float, help="of a core for each front")
    parser.add_argument("--short", action="store_true", help="a tenth of the requests")
    arguments = parser.parse_args()
    samples, _ = soundfile.read(SAMPLE, dtype="int16")
    files: list[FileRow] = []
    live: list[LiveRow] = []
    with endless_service(arguments.detector, arguments.fronts) as url, limited_fronts(arguments.front_share):
        print(f"endless device; {os.cpu_count()} processors, the clients on them too; times in ms\n")
        for load in FILES if arguments.live is None and not arguments.device else ():
            requests = max(load.callers, load.requests // (10 if arguments.short else 1))
            files.append(
                asyncio.run(measure_files(url, clip(samples, load), Load(**{**asdict(load), "requests": requests})))
            )
            print(files[-1], flush=True)
        for sessions in () if arguments.files or arguments.device else arguments.live or (25, 60, 120):
            live.append(asyncio.run(measure_live(url, samples, sessions, arguments.frame / 1000)))
            print(live[-1], flush=True)
        device: dict[str, float] = {}
        for measure in (measure_device, measure_device_live) if arguments.device else ():
            device |= asyncio.run(measure(samples))
        print(device)
    print(json.dumps({"files": list(map(asdict, files)), "live": list(map(asdict, live)), "device": device}))


if __name__ == "__main__":
    main()
