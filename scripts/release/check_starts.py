"""Checks that a service chooses the same type of weights, and gives the same text, at every start.

    python -m scripts.release.check_starts [--model NAME] [--starts 10]

Meanwhile a load comes and goes: two busy processes for a while, then none. A choice by a race would change with it.
Prints a line for each start. Exits with status 1 if two differ.
"""

from __future__ import annotations

import argparse
import random
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing import get_context

import httpx

from scripts.bench.serving import SAMPLE, add_server_arguments, read_health, serve, wait_until_ready

BUSY = 2  # processes
LONGEST_SECONDS = 6.0  # of the load, and of the rest between two


def _spin(seconds: float) -> None:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        pass


@contextmanager
def changing_load() -> Iterator[None]:
    """Busy processes that come and go at random while the context lasts."""
    is_over = threading.Event()
    pick = random.Random(18)

    def work() -> None:
        while not is_over.wait(pick.uniform(0, LONGEST_SECONDS)):
            seconds = pick.uniform(0, LONGEST_SECONDS)
            busy = [get_context("spawn").Process(target=_spin, args=(seconds,), daemon=True) for _ in range(BUSY)]
            for process in busy:
                process.start()
            for process in busy:
                process.join()

    worker = threading.Thread(target=work)
    worker.start()
    try:
        yield
    finally:
        is_over.set()
        worker.join()


def main() -> None:
    """Start, ask, stop; again and again."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--starts", type=int, default=10)
    arguments = parser.parse_args()
    found = set()
    with changing_load():
        for number in range(arguments.starts):
            with serve(None, arguments.model) as url:
                seconds = wait_until_ready(url)
                health = read_health(url)
                files = {"file": ("two-minutes.flac", SAMPLE.read_bytes())}
                form = {"model": "whisper-1", "response_format": "text"}
                text = httpx.post(f"{url}/v1/audio/transcriptions", files=files, data=form, timeout=600).text
            found.add((health["precision"], health["precision_reason"], text))
            print(f"start {number + 1}: ready after {seconds:.0f} s, {health['precision']}: "
                  f"{health['precision_reason']}; {len(text)} characters", flush=True)  # fmt: skip
    choices, texts = {one[:2] for one in found}, {one[2] for one in found}
    print(f"{arguments.starts} starts, {len(choices)} choices, {len(texts)} texts")
    sys.exit(len(found) != 1)


if __name__ == "__main__":
    main()
