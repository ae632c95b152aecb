"""Compares every answer of two checkouts of the service, byte for byte: that a change of the code changes nothing else.

python -m scripts.compare.answers OLD NEW                        # folders that have a service.py
python -m scripts.compare.answers OLD NEW --short                # no two-minute sample, fewer questions
python -m scripts.compare.answers OLD NEW --out FOLDER           # keep answers, files and logs there
python -m scripts.compare.answers OLD NEW --expect changes.txt   # names whose difference is intended
python -m scripts.compare.answers OLD OLD --fronts 1 4           # so many front processes each

The file of --expect has a pattern of names a line, as a shell has them, and comments after `#`. The Python that runs
this also serves, one checkout at a time. The last line is a JSON object with the counts; the exit status is 1 if any
answer differs that is not expected to.

What differs between two runs of the same code, and is made equal before it is compared: the ids of requests, events
and sessions; the ids of items, which are numbered as they appear; keys for one session; `expires_at` and `created`;
the server's address; the header `date`; `digests` in /healthz; the values and the order in /metrics. Of recordings of
several utterances the last digits of log-probabilities may differ, see `BATCHED`: they are counted as `rounded`.
live_answers.py says how sockets are paced, so that what they answer is the same every time.
"""

from __future__ import annotations

import argparse
import difflib
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from fnmatch import fnmatchcase
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Any

import httpx
import soundfile

from scripts.bench.serving import free_port
from scripts.compare.http_answers import Answer, Named, http_answers, series
from scripts.compare.live_answers import live_answers
from scripts.compare.odd_files import Sound, odd_files
from scripts.compare.session import Service

SAMPLES = ("short", "two-sentences", "two-minutes")
START_SECONDS = 120.0
ANSWER_SECONDS = 180.0
COLUMNS = ("answers", "equal", "rounded", "intended", "different")
SHOWN_LINES, SHOWN_WIDTH = 20, 240
FIXED = {"BENTOML_DO_NOT_TRACK": "True", "STT_LOG_LEVEL": "warning", "STT_PRECISION": "float32", "STT_THREADS": "1",
         "PYTHONDONTWRITEBYTECODE": "1"}  # fmt: skip
# What a server is not to see of this process's environment, beside STT_*: settings by the names that the original
# wrapper had for them, and where else code might come from.
UNSEEN = {"PYTHONPATH", "PROMETHEUS_MULTIPROC_DIR", "DEVICE", "MODEL_PRECISION", "BATCH_SIZE", "MAX_AUDIO_DURATION",
          "VAD_THRESHOLD", "LOG_LEVEL", "PROCESSING_TIMEOUT", "TARGET_SR"}  # fmt: skip
RANDOM = (
    (re.compile(r"\b(req|sess)_[0-9a-f]{32}\b"), r"\1_"),
    (re.compile(r"\bevent_[0-9a-f]{20}\b"), "event_"),
    (re.compile(r'("x-bentoml-request-id": ")[0-9a-f]{16}'), r"\1"),
    (re.compile(r"\bek_[\w.=-]+"), "ek_"),
    (re.compile(r'(\b(?:expires_at|created)\\?": ?)\d{6,}'), r"\g<1>-1"),
)
# Recordings of several utterances, or in which speech without words is cut and decoded again: what is decoded together
# depends on time, and with that the last digits of what the network computes, of log-probabilities therefore. What is
# decoded alone, as the shorter samples are and all live speech, gives the same bytes every time. At 24 kHz the frames
# of a tick are resampled together, so that there the audio's last digits depend on time.
BATCHED = ("*/two-minutes.flac/*", "odd files/*", "realtime/*")
NUMBER, TOLERANCE = re.compile(r"-?\d+\.\d+(?:e-?\d+)?"), 1e-4
ITEM = re.compile(r"\bitem_[0-9a-f]{20}\b")


class Server:
    """A checkout that serves, for as long as a `with` lasts."""

    def __init__(self, checkout: Path, log: Path, fronts: str) -> None:
        port = free_port()
        self.address = f"127.0.0.1:{port}"
        self.http = httpx.Client(base_url=f"http://{self.address}", timeout=ANSWER_SECONDS)
        self._log = log
        bentoml = Path(sys.executable).with_name("bentoml")
        kept = {name: value for name, value in os.environ.items()
                if not name.startswith("STT_") and name not in UNSEEN}  # fmt: skip
        with log.open("wb") as output:
            self._process = subprocess.Popen(
                [bentoml, "serve", "service:ParakeetSTT", "--host", "127.0.0.1", "--port", str(port)],
                cwd=checkout, stdout=output, stderr=subprocess.STDOUT, env={**kept, **FIXED, "STT_FRONTS": fronts},
            )  # fmt: skip

    def __enter__(self) -> Server:
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if self.http.get("/readyz").status_code == 200 and self.http.get("/healthz").status_code == 200:
                    return self
            except httpx.TransportError:
                pass  # it does not listen yet
            time.sleep(0.2)
        self._end()
        sys.exit(f"the service did not start:\n{self._log.read_text()[-4000:]}")

    def __exit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._end()

    def _end(self) -> None:
        self.http.close()
        self._process.terminate()
        try:
            self._process.wait(60)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    def is_idle(self) -> bool:
        """Whether no audio waits for the recognizer."""
        found = re.search(r"^\w*queue_audio_seconds (\S+)$", self.http.get("/metrics").text, re.MULTILINE)
        if found is None:
            raise LookupError("/metrics does not say how much audio waits")
        return float(found[1]) == 0

    def key(self, session: Mapping[str, Any]) -> str:
        """A key for one session of /v1/realtime."""
        return str(self.http.post("/v1/realtime/client_secrets", json={"session": session}).json()["value"])


def plain(text: str) -> str:
    """The text without what is random in it."""
    for pattern, instead in RANDOM:
        text = pattern.sub(instead, text)
    numbers: dict[str, int] = {}
    return ITEM.sub(lambda found: f"item_{numbers.setdefault(found[0], len(numbers) + 1)}", text)


def questions(
    server: Server, samples: Mapping[str, bytes], sounds: Mapping[str, Sound], odd: Mapping[str, bytes], *, short: bool
) -> Iterator[Named]:
    """All that is asked of a server, by name; of /metrics last, when all labels are there."""
    yield from http_answers(server.http, samples, odd, short=short)
    yield from live_answers(Service(server.address, server.is_idle, server.key), sounds)
    yield "pages/GET /metrics", partial(series, server.http)


def record(asked: Iterator[Named], address: str, file: Path) -> dict[str, Answer]:
    """Ask everything; the answers, which are in the file too, a line each. address: the server's."""
    found: dict[str, Answer] = {}
    with file.open("w") as out:
        for name, ask in asked:
            began = time.monotonic()
            try:
                answer = ask()
            except Exception as exc:  # no answer is an answer too
                answer = {"exception": type(exc).__name__, "message": str(exc)}
            text = plain(json.dumps(answer)).replace(address, "ADDRESS")
            if name in found:
                raise ValueError(f"two questions have one name: {name}")
            found[name] = json.loads(text)
            line = {"name": name, "seconds": round(time.monotonic() - began, 3), **found[name]}
            out.write(json.dumps(line) + "\n")
    return found


# How answers are compared


def verdict(name: str, old: Answer | None, new: Answer | None, patterns: Sequence[str]) -> str:
    """equal, rounded, intended or different. patterns: of the names whose difference is intended."""
    has_failed = any(answer is None or "exception" in answer for answer in (old, new))
    if old == new and not has_failed:
        return "equal"
    if not has_failed and matches(name, BATCHED) and is_close(json.dumps(old), json.dumps(new)):
        return "rounded"
    return "intended" if matches(name, patterns) else "different"


def matches(name: str, patterns: Sequence[str]) -> bool:
    """Whether one of the patterns is the name's."""
    return any(fnmatchcase(name, pattern) for pattern in patterns)


def is_close(old: str, new: str) -> bool:
    """Whether only the last digits of numbers differ."""
    if NUMBER.sub("", old) != NUMBER.sub("", new):
        return False
    pairs = zip(NUMBER.findall(old), NUMBER.findall(new), strict=True)
    return all(abs(float(one) - float(other)) <= TOLERANCE for one, other in pairs)


def lines_of(answer: Answer) -> list[str]:
    """An answer to be read by people: JSON within it is laid out too."""
    shown = dict(answer)
    try:
        shown["body"] = json.loads(answer["body"])
    except (KeyError, ValueError):
        if isinstance(answer.get("body"), str):
            shown["body"] = answer["body"].splitlines()
    return json.dumps(shown, indent=1).splitlines()


def difference(name: str, old: Answer | None, new: Answer | None) -> str:
    """The first lines of what differs."""
    if old is None or new is None:
        return f"--- {name}\nonly {'NEW' if old is None else 'OLD'} has it"
    if "exception" in old and "exception" in new:
        return f"--- {name}\nnobody answers: {old['exception']} {old['message']}"
    diff = list(difflib.unified_diff(lines_of(old), lines_of(new), "OLD", "NEW", lineterm="", n=1))
    shown = [line[:SHOWN_WIDTH] for line in diff[2 : 2 + SHOWN_LINES]]
    rest = len(diff) - 2 - SHOWN_LINES
    return "\n".join([f"--- {name}", *shown, *([f"… {rest} more lines"] if rest > 0 else [])])


def expected(file: Path | None) -> list[str]:
    """The patterns of names whose difference is intended."""
    lines = file.read_text().splitlines() if file else []
    return [pattern for line in lines if (pattern := line.partition("#")[0].strip())]


def compare(old: Mapping[str, Answer], new: Mapping[str, Answer], patterns: Sequence[str]) -> Counter[str]:
    """Print a table, and every difference; the counts."""
    counts: dict[str, Counter[str]] = {}
    reported: dict[str, dict[str, str]] = {"intended": {}, "different": {}}
    for name in dict.fromkeys([*old, *new]):
        kind = verdict(name, old.get(name), new.get(name), patterns)
        counts.setdefault(name.partition("/")[0], Counter()).update(["answers", kind])
        if kind in reported:
            reported[kind][name] = difference(name, old.get(name), new.get(name))
    total = sum(counts.values(), Counter())
    print(f"{'group':18}" + "".join(f"{column:>11}" for column in COLUMNS))
    for group, of_group in {**counts, "all": total}.items():
        print(f"{group:18}" + "".join(f"{of_group[column]:11}" for column in COLUMNS))
    for kind, differences in reported.items():
        print(f"\n{kind}: {len(differences)}\n")
        print("".join(f"{one}\n\n" for one in differences.values()), end="")
    for pattern in patterns:
        if not any(fnmatchcase(name, pattern) for name in reported["intended"]):
            print(f"nothing differs where this expects it: {pattern}")
    return total


def main() -> None:
    """Ask both, and compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("old", type=Path, help="folder of a checkout")
    parser.add_argument("new", type=Path, help="folder of another")
    parser.add_argument("--out", type=Path, help="folder for answers, files and logs; unless given: a temporary one")
    parser.add_argument("--short", action="store_true", help="without the two-minute sample")
    parser.add_argument("--expect", type=Path, help="file with patterns of names whose difference is intended")
    parser.add_argument("--fronts", nargs=2, default=("1", "1"), metavar=("OLD", "NEW"), help="front processes of each")
    asked = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # the server is ended first
    patterns = expected(asked.expect)
    out = asked.out or Path(tempfile.mkdtemp(prefix="answers-"))
    (out / "files").mkdir(parents=True, exist_ok=True)
    names = SAMPLES[:-1] if asked.short else SAMPLES
    paths = [asked.old / "models" / "parakeet-tdt-tiny" / "samples" / f"{name}.flac" for name in names]
    samples = {path.name: path.read_bytes() for path in paths}
    sounds = {path.stem: soundfile.read(path, dtype="float32")[0] for path in paths}
    odd = odd_files(sounds["short"], sounds["two-sentences"])
    for name, data in odd.items():
        (out / "files" / name).write_bytes(data)
    found, seconds = [], []
    for label, checkout, fronts in zip(("old", "new"), (asked.old, asked.new), asked.fronts, strict=True):
        began = time.monotonic()
        with Server(checkout, out / f"{label}.log", fronts) as server:
            asking = questions(server, samples, sounds, odd, short=asked.short)
            found.append(record(asking, server.address, out / f"{label}.jsonl"))
        seconds.append(round(time.monotonic() - began))
        print(f"{label}: {len(found[-1])} answers in {seconds[-1]} s, in {out / label}.jsonl", flush=True)
    counts = compare(found[0], found[1], patterns)
    print(json.dumps({**{column: counts[column] for column in COLUMNS}, "seconds": seconds}))
    sys.exit(1 if counts["different"] else 0)


if __name__ == "__main__":
    main()
