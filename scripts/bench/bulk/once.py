"""One run with the stand-in recognizer, as a program that can be killed.

    python -m scripts.bench.bulk.once SOURCE OUT --speed 100 [--address HOST:PORT] [--actors 2] [--together] [--mark]

Ends with one JSON line on standard output: what was done, in how many seconds, and the speed from the first rows to the
last, of which the time is ended_at, in seconds since 1970.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import time

from ray.data import DataContext

from parakeet_stt.bulk.pipeline import Actors, Totals
from parakeet_stt.bulk.recognition import load_decoder
from parakeet_stt.bulk.run import BulkRun
from scripts.bench.bulk.stand_in import LoadStandIn

START_SECONDS = 900  # that actors may take to start: 64 of them on two cores take some minutes


class Clock:
    """Notes when the first rows and the last are done; see `run.Watcher`."""

    def __init__(self) -> None:
        self.first: tuple[float, float] | None = None  # time, and seconds of audio done by then
        self.last = (0.0, 0.0)  # the same

    def begin(self, finished: int, actors: Actors) -> None:
        """Nothing."""

    def count(self, recordings: int) -> None:
        """Nothing."""

    def advance(self, totals: Totals) -> None:
        """Rows are done."""
        self.last = (time.time(), totals.seconds)
        self.first = self.first or self.last

    @property
    def speed(self) -> float:
        """Seconds of audio in a second, between the first rows and the last."""
        if self.first is None or self.last[0] == self.first[0]:
            return float("nan")
        return (self.last[1] - self.first[1]) / (self.last[0] - self.first[0])


def main() -> None:
    """Run."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source")
    parser.add_argument("out")
    parser.add_argument("--speed", type=float, help="of the stand-in, in padded seconds a second; without: the model")
    parser.add_argument("--address", help="of a Ray cluster")
    parser.add_argument("--actors", type=int, default=0)
    parser.add_argument("--cpus", type=int, help="that Ray is to believe in")
    parser.add_argument("--together", action="store_true", help="decode nothing until all actors have started")
    parser.add_argument("--mark", action="store_true", help="who decoded a row; see `stand_in.MarkingDecoder`")
    given = parser.parse_args()
    load = LoadStandIn(given.speed, given.mark) if given.speed else load_decoder
    if given.together:
        DataContext.get_current().wait_for_min_actors_s = START_SECONDS
    clock, began = Clock(), time.monotonic()
    work = BulkRun(
        given.source,
        given.out,
        max_failures=1.0,
        actors=given.actors,
        address=given.address,
        cpus=given.cpus,
        load=load,
    )
    totals = work.execute(clock)
    seconds = time.monotonic() - began
    times = {"run_seconds": seconds, "speed": clock.speed, "ended_at": clock.last[0]}
    print(json.dumps({**dataclasses.asdict(totals), **times}), flush=True)


if __name__ == "__main__":
    main()
