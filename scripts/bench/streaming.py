"""Measures how many live speakers a served model can follow, and the delay of its partials and finals.

    python -m scripts.bench.streaming --speakers 1 10 20
    python -m scripts.bench.streaming --find 700 --seconds 60 --model build/parakeet-0.6b-random.nemo

All speakers are clients in this process. Each sends the bundled long sample, from a place of its own on, to `/ws` in
frames of 20 ms in real time. A final's delay counts from the end of its speech, as the detector finds it, without the
padding. The pause that ends an utterance is part of that delay; the column `-pause` has the 95th percentile without it.
The first partial's delay counts from the beginning of speech. `behind` is the 99th percentile of the delay with which
this process sends: if it is large, this process is the bottleneck. --find finds the largest number of speakers of whose
finals 95 % are within so many ms, the pause included. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from dataclasses import asdict, dataclass, field
from itertools import takewhile
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import WebSocketException

from parakeet_stt.measure.load import percentiles_ms
from parakeet_stt.streaming.endpointer import EndpointRules
from scripts.bench.serving import (
    SAMPLE,
    add_server_arguments,
    describe,
    read_counters,
    read_health,
    serve,
    wait_until_ready,
)

RATE = 16_000
FRAME_SECONDS = 0.02
RULES = EndpointRules()  # those of `/ws`
PAD, PAUSE = RULES.pad_ms / 1000, RULES.silence_ms / 1000  # seconds
WARM_SECONDS = 5.0  # of each session, in which nothing is counted


@dataclass
class Received:
    """What all speakers receive. Delays in seconds.

    shown: number of words in all messages. changed: words of partials that the next message does not repeat. behind:
    how late each frame was sent.
    """

    finals: list[float] = field(default_factory=list)
    first_partials: list[float] = field(default_factory=list)
    shown: int = 0
    changed: int = 0
    errors: int = 0
    behind: list[float] = field(default_factory=list)


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

    def __init__(self, address: str, samples: npt.NDArray[np.int16], received: Received, until: float) -> None:
        """address: of the socket. until: when to stop, by the monotonic clock."""
        self._address, self._samples, self._received, self._until = address, samples, received, until
        self._began = 0.0
        self._seen: set[int] = set()  # utterances that have had a partial
        self._shown: list[str] = []  # words of the last message, if that was a partial

    async def speak(self) -> None:
        """Send audio until the time is over, then wait for the last final."""
        try:
            async with connect(self._address, proxy=None, compression=None) as socket:
                self._began = time.monotonic()
                reading = asyncio.create_task(self._read(socket))
                frame, at = int(FRAME_SECONDS * RATE), 0
                while (now := time.monotonic()) < self._until:
                    due = self._began + at / RATE
                    if due > now:
                        await asyncio.sleep(due - now)
                    self._received.behind.append(max(0.0, time.monotonic() - due))
                    place = at % (len(self._samples) - frame)
                    await socket.send(self._samples[place : place + frame].tobytes())
                    at += frame
                await socket.send('{"type":"end"}')
                await asyncio.wait_for(reading, 30)
        except (OSError, WebSocketException, TimeoutError):
            self._received.errors += 1

    async def _read(self, socket: ClientConnection) -> None:
        async for message in socket:
            self._count(json.loads(message), time.monotonic() - self._began)

    def _count(self, message: dict[str, Any], now: float) -> None:
        """Count one message of the server. now: seconds since the first frame."""
        is_counted = WARM_SECONDS < now < self._until - self._began
        kind = message["type"]
        if kind == "error":
            self._received.errors += 1
        if kind not in ("partial", "final"):
            return
        words = message["text"].split()
        if is_counted:
            self._received.shown += len(words)
            self._received.changed += len(self._shown) - len(common_prefix(self._shown, words))
        self._shown = words if kind == "partial" else []
        if kind == "partial" and message["utterance"] not in self._seen:
            self._seen.add(message["utterance"])
            if is_counted:
                self._received.first_partials.append(now - message["start"] - PAD)
        if kind == "final" and is_counted:
            self._received.finals.append(now - message["end"] + PAD)


def common_prefix(one: list[str], other: list[str]) -> list[str]:
    """The words that both lists begin with."""
    pairs = takewhile(lambda pair: pair[0] == pair[1], zip(one, other, strict=False))
    return [word for word, _ in pairs]


async def measure_speakers(url: str, count: int, seconds: float, *, partials: bool) -> Row:
    """Measure `count` speakers for so many seconds. All of them begin within two seconds."""
    samples, _ = soundfile.read(SAMPLE, dtype="int16")
    received = Received()
    until = time.monotonic() + seconds + 2
    address = f"{url.replace('http', 'ws', 1)}/ws{'?partials=true' if partials else ''}"
    before = await asyncio.to_thread(read_counters, url)
    began = time.monotonic()

    async def run_speaker(number: int) -> None:
        await asyncio.sleep(2 * number / count)
        rolled = np.roll(samples, -int(len(samples) * number / count))
        await Speaker(address, rolled, received, until).speak()

    await asyncio.gather(*(run_speaker(number) for number in range(count)))
    elapsed = time.monotonic() - began
    after = await asyncio.to_thread(read_counters, url)

    def delta(name: str) -> float:
        return after[name] - before[name]

    p50, p95, p99 = percentiles_ms(received.finals, 50, 95, 99)
    first50, first95 = percentiles_ms(received.first_partials, 50, 95)
    (behind,) = percentiles_ms(received.behind, 99)
    return Row(
        speakers=count,
        errors=received.errors,
        finals=len(received.finals),
        final_p50=p50,
        final_p95=p95,
        final_p99=p99,
        beyond_pause_p95=round(p95 - 1000 * PAUSE, 1),
        first_partial_p50=first50,
        first_partial_p95=first95,
        taken_back_percent=round(100 * received.changed / max(1, received.shown), 1),
        server_final_mean=round(1000 * delta("stt_final_seconds_sum") / max(1.0, delta("stt_final_seconds_count")), 1),
        device_busy=round(delta("stt_inference_seconds_sum") / elapsed, 2),
        speakers_behind_p99=behind,
    )


HEADINGS = ("speakers", "errors", "finals", "p50", "p95", "p99", "-pause", "partial", "p95", "back %", "server", "busy",
            "behind")  # fmt: skip


def print_row(row: Row) -> None:
    """Print one line of the table."""
    print(" ".join(f"{value:>8}" for value in asdict(row).values()), flush=True)


def find_most_speakers(url: str, limit_ms: float, seconds: float, *, partials: bool) -> list[Row]:
    """Find the largest number of speakers within the limit, by doubling and then by bisection; all rows."""
    rows: list[Row] = []

    def is_good(count: int) -> bool:
        row = asyncio.run(measure_speakers(url, count, seconds, partials=partials))
        rows.append(row)
        print_row(row)
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
    add_server_arguments(parser)
    parser.add_argument("--seconds", type=float, default=40, help="of each row; the first five do not count")
    parser.add_argument("--speakers", type=int, nargs="*", default=[1, 10, 20])
    parser.add_argument(
        "--find", type=float, metavar="MS", help="find how many speakers have 95 %% of their finals within so many ms"
    )
    parser.add_argument("--no-partials", action="store_true", help="finals only, as the original wrapper's clients get")
    arguments = parser.parse_args()
    partials = not arguments.no_partials
    with serve(arguments.url, arguments.model) as url:
        wait_until_ready(url)
        health = read_health(url)
        print(f"{describe(health)}; a pause is {1000 * PAUSE:.0f} ms; times in ms\n")
        print(" ".join(f"{heading:>8}" for heading in HEADINGS))
        if arguments.find:
            rows = find_most_speakers(url, arguments.find, arguments.seconds, partials=partials)
        else:
            rows = []
            for count in arguments.speakers:
                rows.append(asyncio.run(measure_speakers(url, count, arguments.seconds, partials=partials)))
                print_row(rows[-1])
    print(json.dumps({**health, "partials": partials, "pause_ms": 1000 * PAUSE, "rows": list(map(asdict, rows))}))


if __name__ == "__main__":
    main()
