"""Kills each kind of process under load, and checks that nobody loses more than they must. Run before a release.

    python -m scripts.release.check_recovery                    # each kind 20 times, and stopped for 30 s once
    python -m scripts.release.check_recovery --times 2 --only device

Uploads and live sessions run all the time, and each answer has to be the text that an undisturbed service gives. Only
while a front is killed may connections break, those of that front; their callers ask again. At the end no descriptor,
no process and no file is left over, and memory is where it was. Prints a line for each kind, then one JSON line;
status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import psutil  # type: ignore[import-untyped]
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from parakeet_stt.device.server import IDLE_SECONDS
from scripts.bench.serving import ROOT, serve, wait_until_ready

SAMPLES = ROOT / "models" / "parakeet-tdt-tiny" / "samples"
UPLOADS, SESSIONS = 30, 20
FRAME_SECONDS = 0.1
STOPPED_SECONDS = 30.0
KINDS = ("device", "worker", "media", "front")
BETWEEN_SECONDS = 3.0  # from a recovery to the next kill
READY_SECONDS = 120.0
REST_SECONDS = IDLE_SECONDS + 3  # after which the device process has given back what batches left free
LEAK_BYTES = 150 << 20  # of all processes together, from before the first kill to the end


class Watch:
    """What went right and wrong. may_break: whether connections may break now."""

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()
        self.wrong: list[str] = []
        self.may_break = False

    def check(self, kind: str, found: str, expected: str) -> None:
        """Count an answer."""
        self.counts[kind] += 1
        if found != expected:
            self.wrong.append(f"{kind}: {found!r} in place of {expected!r}")

    def broken(self, kind: str, reason: BaseException | str) -> None:
        """Count a connection that broke."""
        self.counts[f"{kind} broken"] += 1
        if not self.may_break:
            self.wrong.append(f"{kind} broke: {reason!r}")


def processes(parent: int) -> dict[str, list[psutil.Process]]:
    """The service's processes by kind."""
    found: dict[str, list[psutil.Process]] = {kind: [] for kind in KINDS}
    for process in psutil.Process(parent).children(recursive=True):
        try:
            command = " ".join(process.cmdline())
            above = process.parent()
            is_worker = above is not None and "processes.media" in " ".join(above.cmdline())
        except psutil.Error:
            continue
        for kind, word in (("device", "processes.device"), ("front", "worker.service"), ("media", "processes.media")):
            if word in command:
                found["worker" if kind == "media" and is_worker else kind].append(process)
    return found


async def upload(url: str, name: str, expected: str, watch: Watch, over: asyncio.Event) -> None:
    """Send a file again and again, on a connection of its own each time."""
    data = (SAMPLES / name).read_bytes()
    while not over.is_set():
        try:
            async with httpx.AsyncClient(timeout=180) as client:
                answer = await client.post(
                    f"{url}/v1/audio/transcriptions", files={"file": (name, data)}, data={"model": "whisper-1"}
                )
        except httpx.TransportError as exc:
            watch.broken("upload", exc)
            await asyncio.sleep(0.2)
            continue
        if answer.status_code == 200:
            watch.check("upload", answer.json()["text"], expected)
        elif answer.status_code in (429, 503) and watch.may_break:
            await asyncio.sleep(0.2)
        else:
            watch.broken("upload", f"{answer.status_code} {answer.text[:200]}")


async def talk(url: str, name: str, expected: str, watch: Watch, over: asyncio.Event) -> None:
    """Speak a sample in real time again and again."""
    samples, rate = soundfile.read(SAMPLES / name, dtype="int16")
    data, frame = samples.tobytes(), 2 * round(rate * FRAME_SECONDS)
    while not over.is_set():
        texts: list[str] = []
        try:
            async with connect(
                f"{url.replace('http', 'ws', 1)}/ws", proxy=None, open_timeout=60, ping_interval=None
            ) as socket:
                for start in range(0, len(data), frame):
                    await socket.send(data[start : start + frame])
                    await asyncio.sleep(FRAME_SECONDS)
                await socket.send(json.dumps({"type": "end"}))
                async for message in socket:
                    event = json.loads(message)
                    if event["type"] == "final":
                        texts.append(event["text"])
                    elif event["type"] == "error":
                        watch.broken("session", str(event))
                reason = socket.close_code
        except (WebSocketException, OSError, TimeoutError) as exc:
            watch.broken("session", exc)
            await asyncio.sleep(0.2)
            continue
        if reason == 1000:
            watch.check("session", " ".join(texts), expected)
        else:
            watch.broken("session", f"closed with {reason}")


async def expected_texts(url: str) -> dict[str, str]:
    """What the service answers while nothing disturbs it: for files, and for live sessions as `live NAME`."""
    found = {}
    for name in ("short.flac", "two-sentences.flac"):
        for kind in ("", "live "):
            watch, over = Watch(), asyncio.Event()
            over_soon = asyncio.get_running_loop().call_later(0.5, over.set)
            await (talk if kind else upload)(url, name, "?", watch, over)
            over_soon.cancel()
            found[kind + name] = watch.wrong[0].split("'")[1]
    return found


@asynccontextmanager
async def load(url: str, watch: Watch) -> AsyncIterator[None]:
    """Uploads and sessions, while the context lasts; those that have begun are finished."""
    texts = await expected_texts(url)
    names = ("short.flac", "two-sentences.flac")
    over = asyncio.Event()
    callers = [
        *(upload(url, names[i % 2], texts[names[i % 2]], watch, over) for i in range(UPLOADS)),
        *(talk(url, names[i % 2], texts[f"live {names[i % 2]}"], watch, over) for i in range(SESSIONS)),
    ]
    running = [asyncio.create_task(caller) for caller in callers]
    try:
        yield
    finally:
        over.set()
        await asyncio.gather(*running)


async def wait_for_recovery(url: str, parent: int, expected: dict[str, int]) -> float:
    """Seconds until the service is ready and has its processes again. Raises TimeoutError."""
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=10) as client:
        while time.monotonic() - began < READY_SECONDS:
            counts = {kind: len(found) for kind, found in processes(parent).items()}
            try:
                answers = [await client.get(f"{url}/readyz", headers={"connection": "close"}) for _ in range(3)]
            except httpx.TransportError:
                answers = []
            is_ready = bool(answers) and all(answer.status_code == 200 for answer in answers)
            if is_ready and all(counts[kind] >= expected[kind] for kind in ("device", "media", "front")):
                return time.monotonic() - began
            await asyncio.sleep(0.2)
    raise TimeoutError("the service is not ready again")


def usage(parent: int) -> tuple[int, int]:
    """Open descriptors of the processes that live long, and memory of all in no file.

    What is private of a library's file depends on who else has it open.
    """
    found = processes(parent)
    descriptors = sum(process.num_fds() for kind in ("device", "media", "front") for process in found[kind])
    return descriptors, sum(anonymous_bytes(process.pid) for kind in KINDS for process in found[kind])


def anonymous_bytes(pid: int) -> int:
    """Memory of a process in no file."""
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("Anonymous:"))


async def disturb(
    url: str, parent: int, kind: str, watch: Watch, *, times: int, expected: dict[str, int]
) -> dict[str, float]:
    """Kill a random process of a kind so many times, then stop one for a while."""
    pick, recoveries = random.Random(kind), []
    watch.may_break = kind == "front"
    for _ in range(times):
        while not (found := processes(parent)[kind]):  # noqa: ASYNC110  # processes set no event
            await asyncio.sleep(0.05)
        os.kill(pick.choice(found).pid, signal.SIGKILL)
        await asyncio.sleep(0.2)
        recoveries.append(await wait_for_recovery(url, parent, expected))
        await asyncio.sleep(BETWEEN_SECONDS)
    watch.may_break = False
    stopped = pick.choice(processes(parent)[kind])
    stopped.suspend()
    await asyncio.sleep(STOPPED_SECONDS)
    stopped.resume()
    await asyncio.sleep(BETWEEN_SECONDS)
    return {"killed": times, "slowest_recovery_seconds": round(max(recoveries, default=0), 1)}


async def run(url: str, parent: int, kinds: list[str], times: int) -> tuple[Watch, dict[str, dict[str, float]]]:
    """The whole check of a running service."""
    watch, rows = Watch(), {}
    expected = {kind: len(found) for kind, found in processes(parent).items()}
    async with load(url, watch):
        await asyncio.sleep(10)
    await asyncio.sleep(REST_SECONDS)
    before = usage(parent)
    for kind in kinds:
        counted = sum(watch.counts.values())
        async with load(url, watch):
            row = await disturb(url, parent, kind, watch, times=times, expected=expected)
        rows[kind] = {**row, "answers": sum(watch.counts.values()) - counted}
        print(f"{kind:8}", "  ".join(f"{name} {value}" for name, value in rows[kind].items()), flush=True)
    await asyncio.sleep(REST_SECONDS)
    after = usage(parent)
    rows["left"] = {"descriptors": after[0] - before[0], "megabytes": round((after[1] - before[1]) / 1e6, 1)}
    if after[0] - before[0] > 20 or after[1] - before[1] > LEAK_BYTES:
        watch.wrong.append(f"descriptors and bytes in no file {before} before, {after} after")
    return watch, rows


def main() -> None:
    """Check and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--times", type=int, default=20, help="that a process of each kind is killed")
    parser.add_argument("--only", choices=KINDS, help="one kind")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        changes = {"STT_FRONTS": "2", "TMPDIR": folder}
        with serve(None, None, changes=changes) as url:
            wait_until_ready(url)
            (service,) = [one for one in psutil.Process().children() if "serve" in one.cmdline()]
            kinds = [arguments.only] if arguments.only else list(KINDS)
            watch, rows = asyncio.run(run(url, service.pid, kinds, arguments.times))
            everything = [service, *service.children(recursive=True)]
        _, alive = psutil.wait_procs(everything, timeout=60)
        running = [one for one in alive if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
        watch.wrong += [f"still running: {' '.join(one.cmdline())}" for one in running]
        watch.wrong += [f"left behind: {path}" for path in Path(folder).glob("parakeet-stt-*")]
    print(json.dumps({"kinds": rows, "counts": watch.counts, "wrong": watch.wrong}))
    sys.exit(bool(watch.wrong))


if __name__ == "__main__":
    main()
