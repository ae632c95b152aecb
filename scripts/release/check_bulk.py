"""Kills what transcribes an archive, again and again, and looks at what is there at the end.

    python -m scripts.release.check_bulk [--files 300] [--seconds 24] [--kills 20] [--only kills] [--moto COMMAND]

Makes an archive with a bad file among every ten, and runs over it with a recognizer that gives words at fixed places in
the time of a real one:

    whole   once, undisturbed: a row for each recording, a row of errors for each bad file
    kills   reading tasks, actors, media programs and drivers are killed at random; the driver is started again
    nodes   two raylets on this machine: both work, one is killed, the run ends right
    s3      as kills, of drivers, from and to s3://, with moto's server in S3's place; it comes with
            moto[server], in an environment of its own, whose moto_server is on the PATH or is given

At the end each recording is there once, its row is that of the undisturbed run, and no file is half written. Prints a
line for each check, and ends with status 1 if one failed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
from pyarrow import fs

from scripts.bench.bulk.archive import make_archive, read_rows
from scripts.bench.serving import ROOT, free_port

SPEED = 60.0  # padded seconds a second
VICTIMS = {"task": "(_read)", "actor": "(_Decode)", "media": "parakeet_stt.processes.media"}
KINDS = ("task", "actor", "driver", "media")
START_SECONDS = 180.0
CONNECT_TRIES = 10  # with httpx's growing pauses: 255 s
STABLE = ("text", "words", "segments", "duration", "truncated")


def start(folder: Path | str, out: Path | str, *more: str) -> subprocess.Popen[bytes]:
    """A run in a process of its own."""
    command = [sys.executable, "-m", "scripts.bench.bulk.once", str(folder), str(out), "--speed", str(SPEED), *more]
    return subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)


def finish(process: subprocess.Popen[bytes]) -> dict[str, Any]:
    """What a run says at its end."""
    said, _ = process.communicate()
    lines = said.decode().splitlines()
    found: dict[str, Any] = json.loads(lines[-1]) if lines and not process.returncode else {}
    return found


def victims(driver: int, kind: str) -> list[psutil.Process]:
    """Processes of this kind below a driver that do something now."""
    mark, found = VICTIMS[kind], []
    for process in psutil.Process(driver).children(recursive=True):
        try:
            if mark in " ".join(process.cmdline()):
                found.append(process)
        except psutil.Error:
            continue
    return found


def kill_at_random(
    folder: Path | str, out: Path | str, kills: int, seed: int, kinds: Sequence[str] = KINDS
) -> Counter[str]:
    """Run until all is done, killing one of these kinds so often; what was killed."""
    pick, killed = random.Random(seed), Counter[str]()
    process = start(folder, out)
    while process.poll() is None:
        wait(process, pick.uniform(1, 6))
        kind = pick.choice(kinds)
        if killed.total() >= kills or process.poll() is not None:
            continue
        if kind == "driver":
            if not count(out):
                continue  # it has done nothing yet
            process.kill()
            process.wait()
        elif found := victims(process.pid, kind):
            pick.choice(found).kill()
        else:
            continue
        killed[kind] += 1
        print(f"    killed {kind}, {killed.total()} so far; {count(out)} rows are written", flush=True)
        if kind == "driver":
            time.sleep(2)  # its Ray ends with it
            process = start(folder, out)
    while finish(start(folder, out)).get("transcribed") != 0:
        print("    started once more", flush=True)
    return killed


def listed(killed: Counter[str]) -> str:
    """How many were killed, and how many of each kind."""
    return f"{killed.total()} ({', '.join(f'{n} {kind}' for kind, n in killed.items())})"


def wait(process: subprocess.Popen[bytes], seconds: float) -> None:
    """Until it has ended, or so many seconds are over."""
    try:
        process.wait(seconds)
    except subprocess.TimeoutExpired:
        return


def count(out: Path | str) -> int:
    """Rows of both tables that a reader sees now; raises if a file that it sees is not whole."""
    return sum(len(read_rows(out, table)) for table in ("transcripts", "errors"))


def compare(out: Path | str, whole: Path) -> list[str]:
    """What differs from an undisturbed run; empty if nothing does."""
    wrong = []
    for table in ("transcripts", "errors"):
        expected = {row["recording"]: row for row in read_rows(whole, table)}
        rows = read_rows(out, table)
        times = Counter(row["recording"] for row in rows)
        wrong += [f"{name} is in {table} {n} times" for name, n in times.items() if n > 1]
        wrong += [f"{name} is not in {table}" for name in expected.keys() - times.keys()]
        wrong += [f"{name} is in {table}" for name in times.keys() - expected.keys()]
        names = STABLE if table == "transcripts" else ("code", "reason")
        wrong += [
            f"{row['recording']} has another {name}"
            for row in rows
            for name in names
            if row["recording"] in expected and row[name] != expected[row["recording"]][name]
        ]
    return wrong


def lose_a_node(folder: Path, out: Path) -> tuple[Counter[str], list[str]]:
    """Run over two raylets and kill one; rows by node, and what is wrong."""
    from ray.cluster_utils import Cluster

    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    second = cluster.add_node(num_cpus=2)
    cluster.wait_for_nodes()
    try:
        process = start(folder, out, "--address", cluster.address, "--actors", "2", "--mark")
        until = time.monotonic() + START_SECONDS
        while time.monotonic() < until and process.poll() is None and nodes(out).total() < 40:
            wait(process, 1)
        before = nodes(out)
        cluster.remove_node(second, allow_graceful=False)
        print(f"    a raylet of two was killed after {before.total()} rows, of {len(before)} nodes", flush=True)
        said = finish(process)
        return nodes(out), [] if said else [f"the run ended with status {process.returncode}"]
    finally:
        cluster.shutdown()


def nodes(out: Path) -> Counter[str]:
    """Rows by the node that has decoded them."""
    return Counter(row["code_sha256"] for row in read_rows(out))


@contextmanager
def serve_s3(command: str) -> Iterator[None]:
    """An S3 with a bucket named `bucket`, for all that this program starts meanwhile."""
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    log = subprocess.DEVNULL
    server = subprocess.Popen([command, "--host", "127.0.0.1", "--port", str(port)], stdout=log, stderr=log)
    os.environ |= {"AWS_ENDPOINT_URL": url, "AWS_ACCESS_KEY_ID": "check", "AWS_SECRET_ACCESS_KEY": "check"}
    try:
        httpx.Client(transport=httpx.HTTPTransport(retries=CONNECT_TRIES)).put(f"{url}/bucket").raise_for_status()
        yield
    finally:
        server.kill()
        server.wait()


def main() -> None:
    """Check."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=24.0)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", choices=("kills", "nodes", "s3"))
    parser.add_argument("--moto", default="moto_server", help="the command of moto's server")
    given = parser.parse_args()
    bad, failed = given.files // 10, False

    def tell(what: str, wrong: list[str]) -> None:
        nonlocal failed
        failed = failed or bool(wrong)
        print(f"{what}: {'right' if not wrong else '; '.join(wrong[:5])}", flush=True)

    with tempfile.TemporaryDirectory(prefix="check-bulk-") as name:
        folder = make_archive(Path(name, "in"), files=given.files, seconds=given.seconds, bad=bad)
        whole = Path(name, "whole")
        said = finish(start(folder, whole))
        wrong = [] if (said.get("transcribed"), said.get("failed")) == (given.files - bad, bad) else [str(said)]
        tell(f"whole: {given.files - bad} recordings and {bad} bad files", wrong)
        if given.only in (None, "kills"):
            local = Path(name, "kills")
            killed = kill_at_random(folder, local, given.kills, given.seed)
            tell(f"kills: {listed(killed)}", compare(local, whole))
        if given.only in (None, "nodes"):
            local = Path(name, "nodes")
            by_node, wrong = lose_a_node(folder, local)
            tell(f"nodes: rows {' and '.join(map(str, by_node.values()))}", wrong + compare(local, whole))
        if given.only in (None, "s3") and not shutil.which(given.moto):
            tell(f"s3: no {given.moto} here; it comes with moto[server]", ["not checked"])
        elif given.only in (None, "s3"):
            with serve_s3(given.moto):
                fs.copy_files(str(folder), "s3://bucket/in")
                killed = kill_at_random("s3://bucket/in", "s3://bucket/out", given.kills, given.seed, ("driver",))
                tell(f"s3: {listed(killed)}", compare("s3://bucket/out", whole))
    sys.exit(failed)


if __name__ == "__main__":
    main()
