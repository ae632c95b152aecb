"""Measures starts, one for each type of weights in turn: time, and the memory of the device process.

    python -m scripts.bench.random_parakeet
    python -m scripts.bench.host.start [--model build/parakeet-0.6b-random.nemo] [--precisions float32 int8] [--turns 2]

The time is from the command to the first 200 of /readyz, by the clock and of the processors in all processes. The
memory is Linux's (proc(5)): the most that was in no file, read twenty times a second; the most that was resident, which
counts pages of the mapped archive too, of which the system takes back what it needs; what of both there is ten seconds
later; and of all processes, the pages that they share once. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import threading
import time
from contextlib import suppress
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from scripts.bench.random_parakeet import OUT
from scripts.bench.serving import memory_mb, processor_seconds, read_health, serve, wait_until_ready

REST_SECONDS = 10.0
DEVICE = "parakeet_stt.processes.device"


@dataclass(frozen=True, slots=True)
class Start:
    """One start. seconds: until it was ready, by the clock; processor: of all processes. The rest is megabytes.

    The next four are of the device process: the most that was in no file, the most in all, and both at rest.
    service: of all processes.
    """

    precision: str
    seconds: float
    processor: float
    most: float
    most_mapped: float
    rest: float
    rest_mapped: float
    service: float


def measure(model: str, precision: str) -> Start:
    """Start the service with this model and type of weights, and end it."""
    began = time.monotonic()
    with serve(None, model, changes={"STT_PRECISION": precision}) as url:
        most = _watch(url)
        seconds = time.monotonic() - began
        processor = processor_seconds()
        time.sleep(REST_SECONDS)
        assert read_health(url)["precision"] == precision
        read = _read_status(_find_device())
        return Start(precision, seconds, processor, most, read["VmHWM"], read["RssAnon"], read["VmRSS"], memory_mb())


def _watch(url: str) -> float:
    """The most memory of the device process that was in no file, until the service is ready."""
    most = [0.0]

    def watch() -> None:
        while not is_ready.wait(0.05):
            if device := _find_device():
                most[0] = max(most[0], _read_status(device)["RssAnon"])

    is_ready = threading.Event()
    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        wait_until_ready(url)
    finally:
        is_ready.set()
        watcher.join()
    return most[0]


def _find_device() -> int:
    """Its process, or 0 if it has not begun."""
    for one in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            if DEVICE in one.cmdline():
                return int(one.pid)
    return 0


def _read_status(pid: int) -> dict[str, float]:
    """The memory of a process in MB, by proc(5)'s names."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    return {line[0].rstrip(":"): int(line[1]) * 1024 / 1e6 for line in lines if line[-1] == "kB"}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=str(OUT), help="a catalogue name, path or store tag")
    parser.add_argument("--precisions", nargs="+", default=["float32", "int8"])
    parser.add_argument("--turns", type=int, default=2, help="the first finds the file's pages on the disk, perhaps")
    given = parser.parse_args()
    print("  ".join(f"{field.name:>11}" for field in fields(Start)))
    starts = []
    for _ in range(given.turns):
        for precision in given.precisions:
            starts.append(asdict(measure(given.model, precision)))
            print("  ".join(f"{one:>11}" if isinstance(one, str) else f"{one:11.1f}" for one in starts[-1].values()))
    print(json.dumps(starts))


if __name__ == "__main__":
    main()
