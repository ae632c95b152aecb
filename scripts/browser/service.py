"""A service for a check, that can be killed in the middle and started again at the same address; and its answers."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil  # type: ignore[import-untyped]

from scripts.bench.serving import ROOT, wait_until_ready

LOGPROB_TOLERANCE = 1e-3


class Service:
    """`bentoml serve` with these settings; ended with the context."""

    def __init__(self, port: int, log: Path, **settings: str) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self._log = log
        self._command = [str(Path(sys.executable).with_name("bentoml")), "serve", "service:ParakeetSTT",
                         "--host", "127.0.0.1", "--port", str(port)]  # fmt: skip
        kept = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
        self._environment = {**kept, "STT_FRONTS": "1", **settings}

    def start(self) -> None:
        """Start it, and wait until it is ready."""
        with self._log.open("ab") as output:
            self._process = subprocess.Popen(
                self._command, cwd=ROOT, env=self._environment, stdout=output, stderr=subprocess.STDOUT
            )
        wait_until_ready(self.url)

    def kill(self) -> None:
        """End all of its processes at once, as if the machine had failed."""
        parent = psutil.Process(self._process.pid)
        for process in [parent, *parent.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self._process.wait()

    def __enter__(self) -> Service:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._process.poll() is None:
            self.kill()


def have_same_segments(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two answers have the same segments, but for the last digits of log-probabilities.

    These depend on which other utterances share a batch.
    """
    for mine, yours in zip(one["segments"], other["segments"], strict=True):
        if {**mine, "avg_logprob": 0} != {**yours, "avg_logprob": 0}:
            return False
        if abs(mine["avg_logprob"] - yours["avg_logprob"]) > LOGPROB_TOLERANCE:
            return False
    return True
