"""Measures transcription in bulk on this machine.

    python -m scripts.bench.bulk.measure speed [--model NAME] [--files 300] [--seconds 24] [--compare]
    python -m scripts.bench.bulk.measure once [--model NAME] [--files 25] [--seconds 24]
    python -m scripts.bench.bulk.measure memory [--files 300] [--seconds 24]
    python -m scripts.bench.bulk.measure scaling [--actors 1,8,64] [--speed 0.5]

speed: the bare engine over the same utterances, which are in memory, then `parakeet bulk`'s pipeline, then the bare
engine again, on one thread each; and the memory of all processes. The pipeline's speed is that of an archive four times
as large, from its first rows to its last; and that of the recordings that it has more, in the time that it takes
longer, which leaves out starting and nothing else, but for how much two starts differ.
--compare asks a service for the same files, and compares the texts. once: the pipeline alone. memory: the most that all
processes take, of an archive and of one ten times as large, with a recognizer that answers at once. scaling: actors in
one Ray with made-up cores, whose recognizers sleep; each gets the same work, so that all should take equally long, from
the moment at which the last of them has started, before which nothing is read, to the last rows. Prints lines of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]

from parakeet_stt.bulk.entries import Shard, read_entries
from parakeet_stt.bulk.reading import Reader
from parakeet_stt.bulk.recognition import load_decoder
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.server import settings as service_settings
from scripts.bench.bulk.archive import make_archive, read_rows, repeat_names
from scripts.bench.serving import ROOT, serve, wait_until_ready

SAMPLE_SECONDS = 1.0  # between two looks at the memory
SELDOM_SECONDS = 5.0  # where speed is measured: a look at Ray's processes takes a fifth of a second of the processor
TIMES = 4  # as large the second archive is, where speed is measured
TOGETHER = 32  # recordings that the bare engine gets at once, as an actor does
SLEEPING_SPEED = 0.5  # of a recognizer, in padded seconds a second: two cores read for 64 of them
ACTOR_FILES, ACTOR_FILE_SECONDS = 192, 2.0  # of one actor: 6 blocks


def run(folder: Path, out: Path, *more: str, look_seconds: float = SAMPLE_SECONDS) -> dict[str, Any]:
    """A run in a process of its own: what it says, and the most memory that all of its processes took, in MB."""
    command = [sys.executable, "-m", "scripts.bench.bulk.once", str(folder), str(out), *more]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    most = 0.0
    while process.poll() is None:
        most = max(most, tree_memory(process.pid))
        time.sleep(look_seconds)
    assert process.stdout
    lines = process.stdout.read().decode().splitlines()
    if process.returncode or not lines:
        sys.exit(f"the run ended with status {process.returncode}")
    return {**json.loads(lines[-1]), "memory_mb": round(most)}


def tree_memory(pid: int) -> float:
    """MB of a process and all below it; what they share counts once."""
    total = 0.0
    try:
        for process in [psutil.Process(pid), *psutil.Process(pid).children(recursive=True)]:
            try:
                total += process.memory_full_info().pss / 1e6
            except psutil.Error:
                continue
    except psutil.Error:
        pass
    return total


def measure_bare(folder: Path) -> dict[str, float]:
    """Seconds of recordings that the bare engine does in a second, of the clock's and of the processor's."""
    from parakeet_stt.engines.resampling_filters import make_filter

    settings = BulkSettings.of(service_settings.load())
    with closing(Reader(settings, make_filter=make_filter)) as reader:
        parts = [part for entry in read_entries(str(folder), Shard()) for part in reader.read(entry)]
    decoder = load_decoder(settings)
    seconds = sum(part.end.duration for part in parts if part.end)
    began, cpu = time.perf_counter(), time.process_time()
    for first in range(0, len(parts), TOGETHER):
        decoder.decode(parts[first : first + TOGETHER])
    return {
        "speed": seconds / (time.perf_counter() - began),
        "speed_of_processor_time": seconds / (time.process_time() - cpu),
    }


def bare(folder: Path) -> dict[str, float]:
    """The same in a process of its own, as the pipeline has its engine."""
    command = [sys.executable, "-m", "scripts.bench.bulk.measure", "bare", "--folder", str(folder)]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, check=True).stdout
    found: dict[str, float] = json.loads(said.decode().splitlines()[-1])
    return found


def measure_speed(folder: Path, scratch: Path, *, compares: bool) -> dict[str, Any]:
    """In turn: bare, pipeline over the archive, over a larger one, bare."""
    before = bare(folder)
    small = run(folder, scratch / "small", look_seconds=SELDOM_SECONDS)
    more = repeat_names(folder, scratch / "more", TIMES)
    large = run(more, scratch / "large", look_seconds=SELDOM_SECONDS)
    after = bare(folder)
    speed = (large["seconds"] - small["seconds"]) / (large["run_seconds"] - small["run_seconds"])
    bare_speed = (before["speed"] + after["speed"]) / 2
    shares = {"from_first_rows": round(large["speed"] / bare_speed, 3), "by_difference": round(speed / bare_speed, 3)}
    compared = {"texts": compare(folder, scratch / "small")} if compares else {}
    bulk = {"small": small, "large": large, "speed": round(speed, 1)}
    return {"bare": [before, after], "bulk": bulk, "share_of_bare": shares, **compared}


def compare(folder: Path, out: Path) -> str:
    """How many texts are the service's, byte for byte."""
    texts = {row["recording"]: row["text"] for row in read_rows(out)}
    same = 0
    with serve(None, os.environ.get("STT_MODEL")) as url:
        wait_until_ready(url)
        for path in sorted(folder.iterdir()):
            answer = httpx.post(
                f"{url}/v1/audio/transcriptions", timeout=300, files={"file": path.read_bytes()},
                data={"model": "whisper-1", "response_format": "text"},
            )  # fmt: skip
            same += answer.content == (texts[path.name] + "\n").encode()
    return f"{same} of {len(texts)} are the service's"


def measure_memory(folder: Path, scratch: Path) -> dict[str, Any]:
    """Of an archive, and of one with each recording under ten names."""
    speed = ("--speed", "1e9")
    small = run(folder, scratch / "small", *speed)
    large = run(repeat_names(folder, scratch / "ten", 10), scratch / "large", *speed)
    return {"once": small, "ten_times": large, "ratio": round(large["memory_mb"] / small["memory_mb"], 3)}


def measure_scaling(scratch: Path, actors: Sequence[int], speed: float) -> list[dict[str, Any]]:
    """The share of the time in which so many recognizers have slept, which is all that they have to do.

    speed: of each, in padded seconds a second.
    """
    found = []
    one = make_archive(scratch / "one", files=ACTOR_FILES, seconds=ACTOR_FILE_SECONDS)
    for count in actors:
        folder = repeat_names(one, scratch / f"of {count}", count)
        out = scratch / f"out {count}"
        more = ("--speed", str(speed), "--actors", str(count), "--cpus", str(count + 4), "--together")
        said = run(folder, out, *more, "--mark", look_seconds=SELDOM_SECONDS)
        slept: dict[float, float] = {}  # by the time at which an actor had started
        for row in read_rows(out):
            started = float(row["lock_sha256"])
            slept[started] = max(slept.get(started, 0.0), float(row["model_sha256"]))
        took = said["ended_at"] - max(slept)
        shares = {"share_of_ideal": round(sum(slept.values()) / (count * took), 3), "took": round(took, 1)}
        ends = {"least_slept": round(min(slept.values()), 1), "most_slept": round(max(slept.values()), 1)}
        found.append({"actors": count, "worked": len(slept), **shares, **ends, **said})
        print(json.dumps(found[-1]), flush=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("speed", "once", "memory", "scaling", "bare"))
    parser.add_argument("--model", help="as STT_MODEL takes it")
    parser.add_argument("--files", type=int, default=300)
    parser.add_argument("--seconds", type=float, default=24.0)
    parser.add_argument("--actors", default="1,8,64")
    parser.add_argument("--speed", type=float, default=SLEEPING_SPEED, help="of a recognizer that sleeps")
    parser.add_argument("--compare", action="store_true")
    parser.add_argument("--folder", type=Path, help="of an archive that is there")
    given = parser.parse_args()
    os.environ.setdefault("STT_THREADS", "1")
    if given.model:
        os.environ["STT_MODEL"] = given.model
    with tempfile.TemporaryDirectory(prefix="bench-bulk-") as name:
        scratch = Path(name)
        if given.what == "bare":
            print(json.dumps(measure_bare(given.folder)))
            return
        if given.what == "scaling":
            measure_scaling(scratch, [int(one) for one in given.actors.split(",")], given.speed)
            return
        folder = given.folder or make_archive(scratch / "in", files=given.files, seconds=given.seconds)
        if given.what == "speed":
            print(json.dumps(measure_speed(folder, scratch, compares=given.compare)))
        elif given.what == "once":
            print(json.dumps(run(folder, scratch / "out")))
        else:
            print(json.dumps(measure_memory(folder, scratch)))


if __name__ == "__main__":
    main()
