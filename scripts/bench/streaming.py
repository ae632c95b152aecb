"""Knows how many people a served model follows while they speak, and how late it is. Speakers talk from this process.

    python -m scripts.bench.streaming --speakers 1 10 20
    python -m scripts.bench.streaming --find 700 --seconds 60 --model build/parakeet-0.6b-random.nemo

Each speaker says the bundled long sample, from another place in it on, through `/ws` in frames of 20 ms in real time.
A final's delay is counted from the end of its speech, which is where the detector heard it end, less the padding: the
pause that is waited for is part of it, and stands beside it. A partial's is counted from the beginning of speech. `lag`
is how late the server hears what is sent, at most. With --find, the largest number of speakers whose finals' 95th
percentile is within so many ms, the pause included. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import time
from dataclasses import asdict, dataclass, field

import httpx
import numpy as np
import soundfile
from websockets.asyncio.client import connect
from websockets.exceptions import WebSocketException

from parakeet_stt.streaming.session import TurnRules
from scripts.bench.server import SAMPLE, counted, served, wait_until_ready

RATE = 16_000
FRAME_SECONDS = 0.02
TURNS = TurnRules()
PAD, PAUSE = TURNS.pad_ms / 1000, TURNS.silence_ms / 1000
WARM_SECONDS = 5.0  # of which nothing is counted


@dataclass
class Heard:
    """What the speakers have seen, in seconds. changed: words of partials that the next message took back."""

    finals: list[float] = field(default_factory=list)
    first_partials: list[float] = field(default_factory=list)
    shown: int = 0
    changed: int = 0
    errors: int = 0
    behind: list[float] = field(default_factory=list)  # of the speakers themselves: this process is the bottleneck


@dataclass
class Row:
    """One line of the table; times in ms."""

    speakers: int
    errors: int
    finals: int
    final_p50: float
    final_p95: float
    final_p99: float
    beyond_pause_p95: float
    first_partial_p50: float
    first_partial_p95: float
    taken_back_percent: float
    server_final_mean: float
    device_busy: float
    speakers_behind_p99: float


class Speaker:
    """One client that speaks in real time."""

    def __init__(self, url: str, sound: np.ndarray, query: str, heard: Heard, until: float) -> None:
        self._url, self._sound, self._query, self._heard, self._until = url, sound, query, heard, until
        self._began = 0.0
        self._seen: set[int] = set()
        self._shown: list[str] = []

    async def talk(self) -> None:
        """Until the time is over."""
        try:
            async with connect(f"{self._url}/ws?{self._query}", proxy=None, compression=None) as socket:
                self._began = time.monotonic()
                reading = asyncio.create_task(self._read(socket))
                frame, at = int(FRAME_SECONDS * RATE), 0
                while (now := time.monotonic()) < self._until:
                    due = self._began + at / RATE
                    if due > now:
                        await asyncio.sleep(due - now)
                    self._heard.behind.append(max(0.0, time.monotonic() - due))
                    place = at % (len(self._sound) - frame)
                    await socket.send(self._sound[place : place + frame].tobytes())
                    at += frame
                await socket.send('{"type":"end"}')
                await asyncio.wait_for(reading, 30)
        except (OSError, WebSocketException, TimeoutError):
            self._heard.errors += 1

    async def _read(self, socket: object) -> None:
        async for message in socket:  # type: ignore[attr-defined]
            self._take(json.loads(message), time.monotonic() - self._began)

    def _take(self, message: dict[str, object], now: float) -> None:
        is_counted = WARM_SECONDS < now < self._until - self._began
        kind, number = message["type"], message.get("utterance")
        if kind == "error":
            self._heard.errors += 1
        if kind not in ("partial", "final"):
            return
        words = str(message["text"]).split()
        kept = sum(1 for _ in iter_same(self._shown, words))
        if is_counted:
            self._heard.shown += len(words)
            self._heard.changed += len(self._shown) - kept
        self._shown = words if kind == "partial" else []
        if kind == "partial" and number not in self._seen:
            assert isinstance(number, int)
            self._seen.add(number)
            if is_counted:
                start = message["start"]
                assert isinstance(start, float | int)
                self._heard.first_partials.append(now - start - PAD)
        if kind == "final" and is_counted:
            end = message["end"]
            assert isinstance(end, float | int)
            self._heard.finals.append(now - end + PAD)


def iter_same(one: list[str], other: list[str]) -> list[str]:
    """The words with which both begin."""
    same = []
    for left, right in zip(one, other, strict=False):
        if left != right:
            break
        same.append(left)
    return same


def percentiles(values: list[float], *which: float) -> list[float]:
    """In ms."""
    return [round(1000 * float(value), 1) for value in np.percentile(values or [float("nan")], which)]


async def measured(url: str, count: int, seconds: float, *, partials: bool) -> Row:
    """So many speakers for so long, who begin within two seconds."""
    samples, _ = soundfile.read(SAMPLE, dtype="int16")
    heard = Heard()
    until = time.monotonic() + seconds + 2
    query = "partials=true" if partials else ""
    before = await asyncio.to_thread(counted, url)
    began = time.monotonic()

    async def one(number: int) -> None:
        await asyncio.sleep(2 * number / count)
        sound = np.roll(samples, -int(len(samples) * number / count))
        await Speaker(url.replace("http", "ws"), sound, query, heard, until).talk()

    await asyncio.gather(*(one(number) for number in range(count)))
    took = time.monotonic() - began
    after = await asyncio.to_thread(counted, url)

    def delta(name: str) -> float:
        return after[name] - before[name]

    p50, p95, p99 = percentiles(heard.finals, 50, 95, 99)
    first50, first95 = percentiles(heard.first_partials, 50, 95)
    (behind,) = percentiles(heard.behind, 99)
    return Row(
        speakers=count,
        errors=heard.errors,
        finals=len(heard.finals),
        final_p50=p50,
        final_p95=p95,
        final_p99=p99,
        beyond_pause_p95=round(p95 - 1000 * PAUSE, 1),
        first_partial_p50=first50,
        first_partial_p95=first95,
        taken_back_percent=round(100 * heard.changed / max(1, heard.shown), 1),
        server_final_mean=round(1000 * delta("stt_final_seconds_sum") / max(1.0, delta("stt_final_seconds_count")), 1),
        device_busy=round(delta("stt_inference_seconds_sum") / took, 2),
        speakers_behind_p99=behind,
    )


HEADINGS = ("speakers", "errors", "finals", "p50", "p95", "p99", "-pause", "partial", "p95", "back %", "server", "busy",
            "behind")  # fmt: skip


def show(row: Row) -> None:
    """One line."""
    print(" ".join(f"{value:>8}" for value in asdict(row).values()), flush=True)


def most(url: str, limit_ms: float, seconds: float, *, partials: bool) -> list[Row]:
    """Rows on the way to the largest number of speakers within the limit: doubled first, then halved in between."""
    rows: list[Row] = []

    def is_good(count: int) -> bool:
        row = asyncio.run(measured(url, count, seconds, partials=partials))
        rows.append(row)
        show(row)
        return row.final_p95 <= limit_ms and not row.errors

    good, bad = 0, 1
    while is_good(bad):
        good, bad = bad, bad * 2
    while bad - good > max(1, good // 10):
        middle = (good + bad) // 2
        good, bad = (middle, bad) if is_good(middle) else (good, middle)
    print(f"at most {good} speakers with finals within {limit_ms:.0f} ms for 95 %")
    return rows


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server")
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--seconds", type=float, default=40, help="of each row, the first five of which do not count")
    parser.add_argument("--speakers", type=int, nargs="*", default=[1, 10, 20])
    parser.add_argument(
        "--find", type=float, help="ms that 95 %% of the finals are to be within; finds how many speakers"
    )
    parser.add_argument(
        "--no-partials", action="store_true", help="finals only, as the original wrapper's clients have"
    )
    arguments = parser.parse_args()
    partials = not arguments.no_partials
    with served(arguments.url, arguments.model) as url:
        wait_until_ready(url)
        health = httpx.get(f"{url}/healthz").json()
        print(f"{health['model']} on {health['device']} in {health['precision']}; {os.cpu_count()} processors; a pause "
              f"is {1000 * PAUSE:.0f} ms; times in ms\n")  # fmt: skip
        print(" ".join(f"{heading:>8}" for heading in HEADINGS))
        if arguments.find:
            rows = most(url, arguments.find, arguments.seconds, partials=partials)
        else:
            rows = []
            for count in arguments.speakers:
                rows.append(asyncio.run(measured(url, count, arguments.seconds, partials=partials)))
                show(rows[-1])
    print(json.dumps({**health, "partials": partials, "pause_ms": 1000 * PAUSE, "rows": list(map(asdict, rows))}))


if __name__ == "__main__":
    main()
