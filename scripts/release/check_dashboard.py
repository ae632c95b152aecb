"""Checks with a real Prometheus that each query of the dashboard finds something, and that each alert is valid.

    apt-get install prometheus
    python -m scripts.release.check_dashboard --seconds 60

Starts the service, puts the load of scripts/bench/server.py and one live session on it, and starts a Prometheus with
the configuration of deploy/compose that scrapes this service. Then it sends each query of each panel and prints the
result. A query without a result, or without a number in it, is a failure.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import soundfile
import yaml
from websockets.asyncio.client import connect

from scripts.bench.server import Row, cut_clips, measure_load
from scripts.bench.serving import ROOT, SAMPLE, add_server_arguments, serve, wait_until_ready

COMPOSE = ROOT / "deploy" / "compose"
DASHBOARD = COMPOSE / "grafana" / "dashboards" / "parakeet-stt.json"
PROMETHEUS_PORT = 9099
VARIABLES = {"$__rate_interval": "30s", "$instance": ".*"}  # the values that Grafana would give them
FRAME_SECONDS = 0.1


@dataclass(frozen=True)
class Query:
    """A query of a panel, or the condition of an alert.

    panel: title of the panel, or name of the alert. expression: PromQL, without Grafana's variables.
    """

    panel: str
    expression: str


def read_queries() -> list[Query]:
    """All queries of the dashboard."""
    panels = json.loads(DASHBOARD.read_text())["panels"]
    return [Query(panel["title"], fill_in(target["expr"])) for panel in panels for target in panel.get("targets", ())]


def fill_in(expression: str) -> str:
    """A query as Grafana would send it."""
    for name, value in VARIABLES.items():
        expression = expression.replace(name, value)
    return expression


def read_alerts() -> list[Query]:
    """The conditions of all alerts. They have a result only if something is wrong."""
    groups = yaml.safe_load((COMPOSE / "alerts.yml").read_text())["groups"]
    return [Query(rule["alert"], rule["expr"]) for group in groups for rule in group["rules"]]


@contextmanager
def run_prometheus(target: str) -> Iterator[str]:
    """The address of a Prometheus with the configuration of deploy/compose that scrapes `target`."""
    with tempfile.TemporaryDirectory() as folder:
        config = yaml.safe_load((COMPOSE / "prometheus.yml").read_text())
        config["rule_files"] = [str(COMPOSE / name) for name in config["rule_files"]]
        (scrape,) = config["scrape_configs"]
        scrape["static_configs"] = [{"targets": [target]}]
        file = Path(folder, "prometheus.yml")
        file.write_text(yaml.safe_dump(config))
        address = f"127.0.0.1:{PROMETHEUS_PORT}"
        command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={folder}/data",
                   f"--web.listen-address={address}"]  # fmt: skip
        with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            try:
                yield f"http://{address}"
            finally:
                process.terminate()


async def speak(url: str, seconds: float) -> None:
    """A live session that sends the sample in real time for so many seconds."""
    samples, rate = soundfile.read(SAMPLE, dtype="int16")
    step = int(FRAME_SECONDS * rate)
    async with connect(f"{url.replace('http', 'ws', 1)}/ws?sample_rate={rate}") as socket:
        until = time.monotonic() + seconds
        start = 0
        while time.monotonic() < until:
            await socket.send(samples[start : start + step].tobytes())
            start = (start + step) % (len(samples) - step)
            await asyncio.sleep(FRAME_SECONDS)


async def run_load(url: str, seconds: float, callers: int) -> Row:
    """Callers with files, and one live session."""
    row, _ = await asyncio.gather(measure_load(url, cut_clips(), seconds, callers=callers), speak(url, seconds))
    return row


def evaluate(url: str, expression: str) -> list[float]:
    """The present values of a query."""
    answer = httpx.get(f"{url}/api/v1/query", params={"query": expression}, timeout=30).raise_for_status().json()
    return [float(series["value"][1]) for series in answer["data"]["result"]]


def read_rules(url: str) -> dict[str, dict[str, Any]]:
    """The alerts that Prometheus has loaded, by name."""
    groups = httpx.get(f"{url}/api/v1/rules", timeout=30).raise_for_status().json()["data"]["groups"]
    return {rule["name"]: rule for group in groups for rule in group["rules"]}


def main() -> int:
    """Run the load, send the queries and print; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_server_arguments(parser)
    parser.add_argument("--seconds", type=float, default=60, help="of load")
    parser.add_argument("--callers", type=int, default=4)
    arguments = parser.parse_args()
    if not shutil.which("prometheus"):
        sys.exit("there is no prometheus on the PATH: apt-get install prometheus")
    failures = 0
    with serve(arguments.url, arguments.model) as url:
        wait_until_ready(url)
        with run_prometheus(url.removeprefix("http://")) as prometheus_url:
            print(asyncio.run(run_load(url, arguments.seconds, arguments.callers)), "\n")
            for query in read_queries():
                values = evaluate(prometheus_url, query.expression)
                numbers = [value for value in values if value == value]  # not NaN
                failures += not numbers
                shown = ", ".join(f"{value:.4g}" for value in numbers) or "NOTHING"
                print(f"{query.panel:36} {shown:12} {query.expression}")
            print()
            time.sleep(15)  # until every rule has been evaluated once
            loaded = read_rules(prometheus_url)
            for alert in read_alerts():
                rule = loaded.get(alert.panel, {"health": "not loaded", "state": ""})
                failures += rule["health"] != "ok"
                print(f"{alert.panel:36} {rule['health']:12} {rule['state']}")
            version = httpx.get(f"{prometheus_url}/api/v1/status/buildinfo").json()["data"]["version"]
    print(f"\nPrometheus {version}: {len(read_queries())} queries and {len(read_alerts())} alerts, {failures} failures")
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
