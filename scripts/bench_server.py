"""Knows how fast a served model answers over real HTTP, from another process. Knows nothing of the server's insides.

    make bench

Starts the service as `make serve` does, unless --url names a running one. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np

ROOT = Path(__file__).parents[1]
SAMPLES = ROOT / "models" / "parakeet-tdt-tiny" / "samples"
PORT = 3099


@contextmanager
def served(url: str | None) -> Iterator[str]:
    """The address of a server that is ready."""
    if url:
        yield url
        return
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:ParakeetSTT", "--port", str(PORT),
               "--host", "127.0.0.1"]  # fmt: skip
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
        try:
            yield f"http://127.0.0.1:{PORT}"
        finally:
            process.terminate()


def wait_until_ready(url: str, seconds: float = 180) -> float:
    """Seconds until /readyz answers 200."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return time.monotonic() - began
        except httpx.TransportError:
            time.sleep(0.2)
    sys.exit(f"{url} was not ready in {seconds:.0f} s")


def closed_loop(url: str, callers: int, requests: int, file: Path) -> dict[str, float]:
    """`requests` requests from `callers` callers, each of whom waits for its answer before it asks again."""
    data = file.read_bytes()

    def ask(client: httpx.Client) -> float:
        began = time.perf_counter()
        answer = client.post(f"{url}/v1/audio/transcriptions", files={"file": data}, data={"model": "whisper-1"})
        answer.raise_for_status()
        return time.perf_counter() - began

    with httpx.Client(timeout=300, limits=httpx.Limits(max_connections=callers)) as client:
        ask(client)
        with ThreadPoolExecutor(callers) as pool:
            began = time.perf_counter()
            delays = list(pool.map(lambda _: ask(client), range(requests)))
            seconds = time.perf_counter() - began
    p50, p95, p99 = np.percentile(delays, [50, 95, 99]) * 1000
    return {"callers": callers, "requests": requests, "seconds": seconds, "p50_ms": p50, "p95_ms": p95, "p99_ms": p99}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--url", help="a running server")
    arguments = parser.parse_args()
    described = {Path(one["file"]).stem: one for one in json.loads((SAMPLES / "samples.json").read_text())}
    rows = []
    with served(arguments.url) as url:
        ready = wait_until_ready(url)
        health = httpx.get(f"{url}/healthz").json()
        print(f"{health['model']} on {health['device']} in {health['precision']}; {os.cpu_count()} processors, "
              f"{platform.machine()}; ready after {ready:.1f} s\n")  # fmt: skip
        print(f"{'sample':15} {'callers':>7} {'requests':>8} {'RTFx':>8} {'p50 ms':>8} {'p95 ms':>8} {'p99 ms':>8}")
        for name, callers, requests in (("short", 1, 40), ("two-sentences", 1, 40), ("two-sentences", 16, 160),
                                        ("two-minutes", 1, 3)):  # fmt: skip
            row = closed_loop(url, callers, requests, SAMPLES / f"{name}.flac")
            rtfx = described[name]["seconds"] * requests / row["seconds"]
            rows.append(
                {"sample": name, "rtfx": round(rtfx, 1), **{key: round(value, 1) for key, value in row.items()}}
            )
            print(f"{name:15} {callers:7} {requests:8} {rtfx:8.1f} {row['p50_ms']:8.1f} {row['p95_ms']:8.1f} "
                  f"{row['p99_ms']:8.1f}", flush=True)  # fmt: skip
    print(json.dumps({"ready_seconds": round(ready, 1), **health, "rows": rows}))


if __name__ == "__main__":
    main()
