"""Starts the service that a benchmark measures, or uses a running one; reads its counters, time and memory.

Shared by the benchmarks of a served model and by scripts/release.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import httpx
import psutil  # type: ignore[import-untyped]

from parakeet_stt.cli.files.private_server import free_port as free_port

ROOT = Path(__file__).parents[2]
SAMPLE = ROOT / "models" / "parakeet-tdt-tiny" / "samples" / "two-minutes.flac"  # 16 kHz, mono
READY_SECONDS = 180.0


def add_server_arguments(parser: argparse.ArgumentParser) -> None:
    """Add --url and --model, the arguments of `serve`."""
    parser.add_argument("--url", help="a running server")
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")


@contextmanager
def serve(
    url: str | None,
    model: str | None,
    *,
    target: str = "service:ParakeetSTT",
    changes: Mapping[str, str] | None = None,
    output: int | IO[bytes] = subprocess.DEVNULL,
    checkout: Path = ROOT,
) -> Iterator[str]:
    """The address of a server: `url`, or one that is started here with this model and stopped at the end.

    target: what BentoML serves. changes: of the environment. output: where its log goes. checkout: whose service.
    """
    if url:
        yield url
        return
    port = free_port()
    command = [str(Path(sys.executable).with_name("bentoml")), "serve", target, "--port", str(port),
               "--host", "127.0.0.1"]  # fmt: skip
    settings = {"STT_LOG_LEVEL": "warning", "STT_MAX_AUDIO_SECONDS": "100000"}
    environment = {**os.environ, **settings, **({"STT_MODEL": model} if model else {}), **(changes or {})}
    with subprocess.Popen(command, cwd=checkout, env=environment, stdout=output, stderr=output) as process:
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            process.terminate()


def wait_until_ready(url: str) -> float:
    """Seconds until /readyz answers 200. Exits after `READY_SECONDS`."""
    began = time.monotonic()
    while time.monotonic() - began < READY_SECONDS:
        try:
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return time.monotonic() - began
        except httpx.TransportError:
            pass  # not listening yet
        time.sleep(0.1)
    sys.exit(f"{url} was not ready in {READY_SECONDS:.0f} s")


def read_health(url: str) -> dict[str, Any]:
    """What the server says of itself in /healthz."""
    health: dict[str, Any] = httpx.get(f"{url}/healthz").json()
    return health


def describe(health: dict[str, Any]) -> str:
    """Model, device, precision and processors, as the first part of a benchmark's first line."""
    return f"{health['model']} on {health['device']} in {health['precision']}; {os.cpu_count()} processors"


def read_counters(url: str) -> dict[str, float]:
    """The server's metrics, by name and labels."""
    lines = httpx.get(f"{url}/metrics", timeout=10).text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def processor_seconds() -> float:
    """Of all processes below this one, so far."""
    spent = 0.0
    for process in psutil.Process().children(recursive=True):
        times = process.cpu_times()
        spent += times.user + times.system
    return spent


def memory_mb() -> float:
    """Of all processes below this one, now; what they share counts once."""
    return float(sum(process.memory_full_info().pss for process in psutil.Process().children(recursive=True)) / 1e6)
