"""The parts that start the real service: its speed over HTTP, and how many live sessions it follows."""

from __future__ import annotations

import asyncio
import contextlib
import math
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict
from functools import cache
from multiprocessing import get_context
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any

import httpx

from scripts.bench.gpu.plan import Setup
from scripts.bench.serving import ROOT, read_health, serve

CALLERS = (64, 256, 512)
CALLERS_A_PROCESS = 64  # one Python process sends about 300 requests a second
LIMIT_MS = 700.0  # for 95 % of the finals, the pause included
SPEAKERS_A_PROCESS = 48  # 50 messages a second each; one Python process sends about 5,000 without being late
FIRST_SPEAKERS = 256
MOST_SESSIONS = 4096  # more than are measured
ROUND_SECONDS = 15.0  # of one number of speakers; the first five do not count
LOG = ROOT / "build" / "gpu-service.log"
LAST_LINES = 5


def best_rtfx(setup: Setup) -> float | None:
    """The engine's best speed in bfloat16, or whatever was measured, if that part succeeded."""
    cells = setup.rows_of.get("engine", {}).get("cells", [])
    chosen = [cell["rtfx"] for cell in cells if cell["precision"] == "bfloat16"] or [cell["rtfx"] for cell in cells]
    return max(chosen, default=None)


@cache
def _serve(model: Path, device: str) -> str:
    """The address of the service that all parts of this process measure; it ends with the process."""
    running = ExitStack()
    Finalize(None, running.close, exitpriority=1)
    changes = {"STT_DEVICE": device, "STT_MAX_SESSIONS": str(MOST_SESSIONS), "STT_LOG_LEVEL": "info"}
    LOG.parent.mkdir(parents=True, exist_ok=True)
    output = running.enter_context(LOG.open("wb"))
    return running.enter_context(serve(None, str(model), changes=changes, output=output))


def wait_until_ready(url: str, seconds: float) -> float:
    """Seconds until /readyz answers 200. Raises TimeoutError after so many."""
    began = time.monotonic()
    while time.monotonic() - began < seconds:
        with contextlib.suppress(httpx.TransportError):
            if httpx.get(f"{url}/readyz", timeout=5).status_code == 200:
                return time.monotonic() - began
        time.sleep(0.1)
    said = LOG.read_text(errors="replace").strip().splitlines()[-LAST_LINES:] if LOG.exists() else []
    raise TimeoutError(f"the service was not ready in {seconds:.0f} s; its log ends with: {' | '.join(said)}")


def measure_served(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `served`: closed loops of many callers over HTTP, clips of 1 to 30 s."""
    until = time.monotonic() + seconds
    rows = []
    url = _serve(setup.model, setup.device)
    ready = wait_until_ready(url, seconds)
    health = read_health(url)
    for number, callers in enumerate(CALLERS):
        share = (until - time.monotonic()) / (len(CALLERS) - number)
        if share < 3:
            break
        row = measure_callers(url, callers, min(20.0, share))
        bound = best_rtfx(setup)
        row["share_of_engine"] = round(row["rtfx"] / bound, 3) if bound else None
        rows.append(row)
    return {"ready_seconds": round(ready, 1), "health": health, "rows": rows}


def _measure_callers(url: str, callers: int, seconds: float) -> dict[str, Any]:
    from scripts.bench.server import cut_clips, measure_load

    return asdict(asyncio.run(measure_load(url, cut_clips(), seconds, callers=callers)))


def measure_callers(url: str, callers: int, seconds: float) -> dict[str, Any]:
    """So many callers, from several processes. Of their percentiles the worst counts; speed is the server's."""
    rows = in_processes(_measure_callers, url, callers, seconds, CALLERS_A_PROCESS)
    return {
        "load": f"{callers} callers",
        "requests": sum(row["requests"] for row in rows),
        "errors": sum(row["errors"] for row in rows),
        **{name: max(row[name] for row in rows) for name in ("p50_ms", "p95_ms", "p99_ms")},
        **{name: rows[0][name] for name in ("rtfx", "fill", "items")},
    }


def in_processes(
    measure: Callable[[str, int, float], dict[str, Any]], url: str, count: int, seconds: float, most: int
) -> list[dict[str, Any]]:
    """Measure `count` clients, at most so many in each process; what each process finds."""
    processes = math.ceil(count / most)
    shares = [count // processes + (index < count % processes) for index in range(processes)]
    with ProcessPoolExecutor(processes, get_context("spawn")) as pool:
        return list(pool.map(measure, [url] * processes, shares, [seconds] * processes))


def _measure_speakers(url: str, count: int, seconds: float) -> dict[str, Any]:
    from scripts.bench.streaming import measure_speakers

    return asdict(asyncio.run(measure_speakers(url, count, seconds, partials=True)))


def measure_round(url: str, count: int, seconds: float) -> dict[str, Any]:
    """So many speakers, from several processes. Of their percentiles the worst counts."""
    rows = in_processes(_measure_speakers, url, count, seconds, SPEAKERS_A_PROCESS)
    return {
        "speakers": count,
        "errors": sum(row["errors"] for row in rows),
        "finals": sum(row["finals"] for row in rows),
        **{name: max(row[name] for row in rows)
           for name in ("final_p50", "final_p95", "first_partial_p50", "first_partial_p95", "speakers_behind_p99")},
        "device_busy": rows[0]["device_busy"],
    }  # fmt: skip


def measure_live(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `live`: the largest number of sessions of whose finals 95 % are within 700 ms.

    Doubles the number until it is too large, then halves the interval while there is time. `speakers_behind_p99` says
    how late the speakers themselves were: where that is large, the measuring processes are the limit.
    """
    until = time.monotonic() + seconds
    rows: list[dict[str, Any]] = []
    good, bad = 0, 0
    count = FIRST_SPEAKERS if setup.is_gpu else 2
    url = _serve(setup.model, setup.device)
    wait_until_ready(url, seconds)
    while time.monotonic() + ROUND_SECONDS + 5 < until or not rows:
        row = measure_round(url, count, ROUND_SECONDS)
        rows.append(row)
        if row["final_p95"] <= LIMIT_MS and not row["errors"] and row["finals"]:
            good = count
        else:
            bad = count
        if bad and bad - good <= max(1, good // 10):
            break
        count = (good + bad) // 2 if bad else good * 2
        if count == 0:
            break
    return {"at_most": good, "too_many": bad or None, "limit_ms": LIMIT_MS, "rows": rows}
