"""Measures starts, one for each type of weights in turn: time, and the memory of the device process.

    python -m scripts.bench.random_parakeet
    python -m scripts.bench.start [--model build/parakeet-0.6b-random.nemo] [--precisions float32 int8] [--turns 2]

The time is from the command to the first 200 of /readyz, by the clock and of the processors in all processes. The
memory is Linux's (proc(5)): the most that was resident, which counts pages of the mapped archive; what is resident ten
seconds later, and how much of that is not in a file; and of all processes, the pages that they share once. Prints a
table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from dataclasses import asdict, dataclass, fields
from pathlib import Path

import psutil  # type: ignore[import-untyped]

from scripts.bench.random_parakeet import OUT
from scripts.bench.serving import read_health, serve, wait_until_ready

REST_SECONDS = 10.0
DEVICE = "parakeet_stt.processes.device"


@dataclass(frozen=True, slots=True)
class Start:
    """One start. seconds: until it was ready, by the clock; processor: of all processes. The rest is megabytes.

    peak, resident, anonymous: of the device process. service: of all processes.
    """

    precision: str
    seconds: float
    processor: float
    peak: float
    resident: float
    anonymous: float
    service: float


def measure(model: str, precision: str) -> Start:
    """Start the service with this model and type of weights, and end it."""
    began = time.monotonic()
    with serve(None, model, changes={"STT_PRECISION": precision}) as url:
        wait_until_ready(url)
        seconds = time.monotonic() - began
        processor = sum(sum(one.cpu_times()[:2]) for one in _processes())
        time.sleep(REST_SECONDS)
        assert read_health(url)["precision"] == precision
        (device,) = (one for one in _processes() if DEVICE in one.cmdline())
        read = _read_status(device.pid)
        service = sum(one.memory_full_info().pss for one in _processes()) / 1e6
    return Start(precision, seconds, processor, read["VmHWM"], read["VmRSS"], read["RssAnon"], service)


def _processes() -> list[psutil.Process]:
    found: list[psutil.Process] = psutil.Process().children(recursive=True)
    return found


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
    print("  ".join(f"{field.name:>10}" for field in fields(Start)))
    starts = []
    for _ in range(given.turns):
        for precision in given.precisions:
            starts.append(asdict(measure(given.model, precision)))
            print("  ".join(f"{one:>10}" if isinstance(one, str) else f"{one:10.1f}" for one in starts[-1].values()))
    print(json.dumps(starts))


if __name__ == "__main__":
    main()
