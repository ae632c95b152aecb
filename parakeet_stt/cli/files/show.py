"""What `parakeet transcribe` shows: bars and failures on standard error, results on standard output."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Sequence
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from parakeet_stt.cli.files.runner import Result, Status
from parakeet_stt.cli.files.sources import Source

NAME_CHARACTERS = 40  # of a source's name beside its bar: the last ones, which tell sources apart


class Screen:
    """Shows the progress, and writes each result.

    On a terminal standard error has a bar for each source in work and one for all; elsewhere a line for each failure.
    """

    def __init__(self, sources: Sequence[Source], *, as_json: bool, is_kept: bool, is_quiet: bool) -> None:
        """is_kept: whether outputs go to files; if not, transcripts go to standard output, in order."""
        self.counts: Counter[Status] = Counter()
        self._as_json, self._is_kept, self._is_quiet = as_json, is_kept, is_quiet
        self._order = {source: index for index, source in enumerate(sources)}
        self._next = 0  # in the order, to be written to standard output
        self._waiting: dict[int, Result] = {}
        self._console = Console(stderr=True, highlight=False)
        self._progress = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(), console=self._console, transient=True, disable=is_quiet or not sys.stderr.isatty(),
        )  # fmt: skip
        self._all = self._progress.add_task("all", total=len(sources), state=f"0 of {len(sources)}")
        self._tasks: dict[Source, TaskID] = {}

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def say(self, text: str) -> None:
        """A line on standard error."""
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, source: Source) -> None:
        """A bar for the source."""
        name = source.name if len(source.name) <= NAME_CHARACTERS else f"…{source.name[-NAME_CHARACTERS:]}"
        self._tasks[source] = self._progress.add_task(name, total=None, state="reading")

    def sent(self, source: Source, done: int, size: int) -> None:
        """The bar follows the upload, then the server works for as long as it takes."""
        if done < size:
            self._progress.update(self._tasks[source], completed=done, total=size, state="sending")
        else:
            self._progress.update(self._tasks[source], completed=0, total=None, state="transcribing")

    def waits(self, source: Source, reason: str) -> None:
        """The reason, where there is a bar."""
        self._progress.update(self._tasks[source], completed=0, total=None, state=f"waiting: {reason[:60]}")

    def end(self, result: Result) -> None:
        """The source's bar goes, and its result is written."""
        self._progress.remove_task(self._tasks.pop(result.source))
        self.counts[result.status] += 1
        done = self.counts.total()
        self._progress.update(self._all, completed=done, state=f"{done} of {len(self._order)}")
        if result.status is Status.FAILED:
            self.say(f"{result.source.name}: {result.error}")
        elif result.is_truncated and not self._is_quiet:
            self.say(f"{result.source.name}: ends before the length that it announces; transcribed as far as it goes")
        if self._as_json:
            self._write(json.dumps(describe(result, is_kept=self._is_kept), ensure_ascii=False).encode() + b"\n")
        elif not self._is_kept:
            self._write_in_order(result)

    def _write_in_order(self, result: Result) -> None:
        """Each transcript after those of the sources before it, under its name if there are several."""
        self._waiting[self._order[result.source]] = result
        while (ready := self._waiting.pop(self._next, None)) is not None:
            for body in ready.bodies.values():
                if len(self._order) > 1:
                    self._write(f"==> {ready.source.name} <==\n".encode())
                self._write(body)
            self._next += 1

    def _write(self, data: bytes) -> None:
        sys.stdout.buffer.write(data)
        sys.stdout.flush()


def describe(result: Result, *, is_kept: bool) -> dict[str, Any]:
    """A result as `--json` writes it."""
    described: dict[str, Any] = {"source": result.source.name, "status": str(result.status)}
    if result.status is Status.FAILED:
        return described | {"error": {"message": result.error, "status": result.http_status, "code": result.code}}
    if is_kept:
        described["outputs"] = dict(result.outputs)
    else:
        described["transcripts"] = {one: body.decode("utf-8", "replace") for one, body in result.bodies.items()}
    if result.speakers:
        described["speakers"] = result.speakers
    return described | ({"truncated": True} if result.is_truncated else {})
