"""The parts of the GPU benchmark: what each measures with, how long it may take, and what becomes of a failure.

Parts of one group share a process, and so an import of torch. A part that raises is reported with its reason, and the
next one runs. A part that ends its process, or outlasts its time, is reported too; the rest continues in another.
"""

from __future__ import annotations

import contextlib
import importlib
import json
import multiprocessing
import os
import signal
import sys
import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

GRACE_SECONDS = 20.0  # beyond a part's own time, until its process is ended: a measurement may be under way
MARGIN_SECONDS = 30.0  # of the whole: for the last part's grace, and for ending processes
MARGIN_SHARE = 0.2  # of the whole at most


@dataclass(frozen=True, slots=True)
class Setup:
    """What all parts measure. model: the .nemo file. short: as little as shows that a part works.

    rows_of: results of the parts before, by name.
    """

    model: Path
    device: str
    short: bool
    rows_of: Mapping[str, Any] = field(default_factory=dict)

    @property
    def is_gpu(self) -> bool:
        """Whether there is a GPU to measure."""
        return self.device != "cpu"


@dataclass(frozen=True, slots=True)
class Part:
    """One part. weight: its share of the time. group: parts of one group run in one process, one after another.

    function: module:name of what measures, given a `Setup` and the seconds that it may take; it returns what JSON can
    hold. Only the process that runs the part imports it. gpu_only: why the part is skipped on a CPU, if it is.
    """

    name: str
    weight: float
    group: str
    function: str
    gpu_only: str = ""


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of a part. seconds: that it took. result: None unless it is ok."""

    status: Literal["ok", "failed", "skipped"]
    reason: str
    seconds: float
    result: Any


def run_part(part: Part, setup: Setup, seconds: float) -> Outcome:
    """Run one part in this process. Never raises but for what ends the process."""
    began = time.monotonic()

    def outcome(status: Literal["ok", "failed", "skipped"], reason: str, result: Any = None) -> Outcome:
        return Outcome(status, reason, round(time.monotonic() - began, 1), result)

    try:
        module, _, name = part.function.partition(":")
        return outcome("ok", "", getattr(importlib.import_module(module), name)(setup, seconds))
    except (Exception, SystemExit) as exc:  # a driver, a compiler or a server may fail in any way; that is a result
        traceback.print_exc()
        return outcome("failed", f"{type(exc).__name__}: {next(iter(str(exc).strip().splitlines()), '')}"[:500])


def run_all(parts: Sequence[Part], setup: Setup, seconds: float) -> Iterator[tuple[str, Outcome]]:
    """Run the parts in processes of their own, and give each outcome as soon as it is known.

    seconds: of the whole. What a part leaves of its share goes to those after it.
    """
    until = time.monotonic() + seconds - min(MARGIN_SECONDS, MARGIN_SHARE * seconds)
    left = [part for part in parts if setup.is_gpu or not part.gpu_only]
    for part in parts:
        if part not in left:
            yield part.name, Outcome("skipped", part.gpu_only, 0.0, None)
    found: dict[str, Any] = {}
    while left:
        worker = _Worker()
        group = left[0].group
        with contextlib.closing(worker):
            while left and left[0].group == group and worker.is_alive:
                share = (until - time.monotonic()) * left[0].weight / sum(part.weight for part in left)
                part = left.pop(0)
                known = Setup(setup.model, setup.device, setup.short, dict(found))
                outcome = worker.run(part, known, max(1.0, share))
                if outcome.status == "ok":
                    found[part.name] = outcome.result
                yield part.name, outcome


class _Worker:
    """A process that runs parts."""

    def __init__(self) -> None:
        context = multiprocessing.get_context("spawn")  # a forked process can't use a GPU
        self._pipe, theirs = context.Pipe()
        self._process = context.Process(target=_work, args=(theirs,), daemon=False)
        self._process.start()
        theirs.close()
        self.is_alive = True

    def run(self, part: Part, setup: Setup, seconds: float) -> Outcome:
        """Run one part; the process is ended if it takes much longer than it may."""
        began = time.monotonic()
        reason = f"took longer than {seconds:.0f} s"
        try:
            self._pipe.send((part, setup, seconds))
            if self._pipe.poll(seconds + GRACE_SECONDS):
                outcome: Outcome = self._pipe.recv()
                return outcome
        except (EOFError, OSError):
            self._process.join(5)
            reason = f"the process ended with status {self._process.exitcode}"
        self.is_alive = False
        return Outcome("failed", reason, round(time.monotonic() - began, 1), None)

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.join(2)
        if self._process.is_alive():
            self._process.terminate()
            self._process.join(5)
        if self._process.is_alive():
            self._process.kill()


def _work(pipe: Any) -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("ended"))  # so that a server which a part started is ended too
    os.dup2(2, 1)  # what libraries print is no part of the report
    with contextlib.suppress(EOFError, OSError, KeyboardInterrupt):  # nobody waits for the result any more
        while True:
            part, setup, seconds = pipe.recv()
            pipe.send(run_part(part, setup, seconds))


def to_json(outcomes: Mapping[str, Outcome], about: Mapping[str, Any]) -> str:
    """One JSON document of all parts."""
    return json.dumps({**about, "parts": {name: asdict(outcome) for name, outcome in outcomes.items()}}, indent=1)
