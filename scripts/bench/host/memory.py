"""Measures the memory of a whole service: once it is ready, and after files from four callers.

    python -m scripts.bench.host.memory [CHECKOUT …] [--files 44] [--turns 3]

CHECKOUT: of another version, whose service this Python runs; several are measured in turn. Megabytes of all processes:
private pages, and the share of common ones, so nothing else that has torch's libraries open may run. The bundled model;
its samples, one after another. Prints a line for each start, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx

from scripts.bench.serving import ROOT, SAMPLE, memory_mb, serve, wait_until_ready

CALLERS = 4
SETTLING_SECONDS = 2.0


def measure(checkout: Path, files: int) -> dict[str, str | int]:
    """Start the service of a checkout, send it files, and end it."""
    samples = sorted(path for path in SAMPLE.parent.iterdir() if path.suffix in (".flac", ".mp3", ".wav"))
    with serve(None, None, checkout=checkout) as url:
        wait_until_ready(url)

        def settled_mb() -> int:
            time.sleep(SETTLING_SECONDS)
            return round(memory_mb())

        def send(number: int) -> None:
            path = samples[number % len(samples)]
            upload = {"file": (path.name, path.read_bytes())}
            answer = httpx.post(
                f"{url}/v1/audio/transcriptions", files=upload, data={"model": "whisper-1"}, timeout=300
            )
            answer.raise_for_status()

        ready = settled_mb()
        with ThreadPoolExecutor(CALLERS) as pool:
            list(pool.map(send, range(files)))
        return {"checkout": str(checkout), "ready_mb": ready, "after_files_mb": settled_mb()}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkouts", nargs="*", type=Path, default=[ROOT], metavar="CHECKOUT")
    parser.add_argument("--files", type=int, default=44)
    parser.add_argument("--turns", type=int, default=3)
    given = parser.parse_args()
    rows = []
    for _ in range(given.turns):
        for checkout in given.checkouts:
            rows.append(measure(checkout, given.files))
            print(rows[-1], flush=True)
    print(json.dumps(rows))


if __name__ == "__main__":
    main()
