"""`parakeet bulk`: an archive → tables of transcripts, on this machine or over a Ray cluster, without a server."""

from __future__ import annotations

import signal
import time
from typing import TYPE_CHECKING, Annotated, cast

import typer

from parakeet_stt.cli.exits import Exit, require

if TYPE_CHECKING:
    from parakeet_stt.bulk.destination import Form
    from parakeet_stt.bulk.pipeline import Actors, Totals

FORMS = ("parquet", "jsonl")
SUBTITLES = ("srt", "vtt")


def bulk(  # each parameter is an option of the command
    source: Annotated[
        str,
        typer.Argument(help="A manifest (.jsonl, .csv, .tsv, .parquet), a folder or a file; also s3://… and alike."),
    ],
    out: Annotated[str, typer.Option("--out", "-o", metavar="DEST", help="Folder of the tables; also s3://… .")],
    form: Annotated[str, typer.Option("--format", "-f", help=f"Of the tables: {', '.join(FORMS)}.")] = "parquet",
    shard: Annotated[str, typer.Option(metavar="I/N", help="Only this of N parts of the archive, from 0.")] = "0/1",
    max_failures: Annotated[
        float, typer.Option(min=0, max=1, help="Share of recordings without a transcript above which it stops.")
    ] = 0.1,
    price: Annotated[
        float | None, typer.Option(min=0, help="Dollars an hour for all machines: shows what an hour of audio costs.")
    ] = None,
    subtitles: Annotated[
        str, typer.Option(help=f"Also write {' or '.join(SUBTITLES)} beside each recording: talk.mp3.srt.")
    ] = "",
    actors: Annotated[int, typer.Option(min=0, help="Recognizers. 0: one a GPU, or one for every four cores.")] = 0,
    ray: Annotated[
        str | None,
        typer.Option(metavar="ADDRESS", help="Of a Ray cluster; RAY_ADDRESS, or a Ray of its own, unless given."),
    ] = None,
    is_quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bar and no table.")] = False,
) -> None:
    """Transcribe an archive. Started again, it goes on where it was stopped. Settings are those of the server."""
    require("ray", "pyarrow", "torch", extras=("engine", "bulk"))
    from parakeet_stt.bulk.entries import Shard
    from parakeet_stt.bulk.run import BulkRun
    from parakeet_stt.errors import SpeechError
    from parakeet_stt.measure.manifests import BadManifest

    if form not in FORMS:
        raise typer.BadParameter(f"{form!r} is none of {', '.join(FORMS)}", param_hint="--format")
    wanted = [one.strip() for one in subtitles.split(",") if one.strip()]
    if unknown := [one for one in wanted if one not in SUBTITLES]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(SUBTITLES)}", param_hint="--subtitles")
    try:
        part = Shard.of(shard)
    except ValueError as exc:
        raise typer.BadParameter(str(exc), param_hint="--shard") from exc
    work = BulkRun(
        source, out, cast("Form", form), part, max_failures, tuple(wanted), actors=actors, address=ray,
    )  # fmt: skip
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # what is done is written, as after Ctrl-C
    try:
        with Screen(price, is_quiet=is_quiet) as screen:
            work.execute(screen)
    except (SpeechError, BadManifest) as exc:
        typer.echo(f"parakeet: {exc}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    except KeyboardInterrupt:
        typer.echo("parakeet: stopped; the same command goes on", err=True)
        raise typer.Exit(Exit.INTERRUPTED) from None


class Screen:
    """A bar on standard error while the context lasts, and a table of what was done at its end."""

    def __init__(self, price: float | None, *, is_quiet: bool) -> None:
        """price: dollars an hour for all machines."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self._console = Console(stderr=True, quiet=is_quiet)
        self._progress = Progress(
            BarColumn(), MofNCompleteColumn(), TextColumn("{task.description}"), TimeElapsedColumn(),
            console=self._console, transient=True,
        )  # fmt: skip
        self._task = self._progress.add_task("starting ...", total=None)
        self._price = price
        self._began = time.monotonic()
        self._seconds = 0.0
        self._finished = 0
        self._totals: Totals | None = None

    def __enter__(self) -> Screen:
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._seconds = time.monotonic() - self._began
        self._progress.stop()
        self._show_table()

    def begin(self, finished: int, actors: Actors) -> None:
        """See `run.Watcher`."""
        self._finished = finished
        each = f"{actors.gpus:g} GPU" if actors.gpus else f"{actors.cpus:g} cores"
        self._progress.update(self._task, description=f"loading {actors.count} recognizers of {each} ...")

    def count(self, recordings: int) -> None:
        """See `run.Watcher`."""
        self._progress.update(self._task, total=recordings)

    def advance(self, totals: Totals) -> None:
        """See `run.Watcher`."""
        self._totals = totals
        self._seconds = time.monotonic() - self._began
        parts = [f"{totals.seconds / 3600:.2f} h", f"{self._speed:.1f} x real time"]
        parts += [f"{totals.failed} failed"] if totals.failed else []
        parts += [f"$ {self._cost:.5f} an hour of audio"] if self._price is not None else []
        done = totals.transcribed + totals.failed
        self._progress.update(self._task, completed=done, description=", ".join(parts))

    @property
    def _speed(self) -> float:
        """Seconds of audio in a second, since the command began."""
        return self._totals.seconds / self._seconds if self._totals else 0.0

    @property
    def _cost(self) -> float:
        """Dollars of an hour of audio, so far."""
        return (self._price or 0.0) / self._speed if self._speed else float("nan")

    def _show_table(self) -> None:
        from rich.table import Table

        totals = self._totals
        rows = [("finished before", f"{self._finished}")] if self._finished else []
        if totals:
            rows += [
                ("transcribed", f"{totals.transcribed}"),
                ("of them truncated", f"{totals.truncated}"),
                ("without a transcript", f"{totals.failed}"),
                ("hours of audio", f"{totals.seconds / 3600:.3f}"),
                ("hours of speech", f"{totals.speech_seconds / 3600:.3f}"),
                ("words", f"{totals.words}"),
                ("time", f"{self._seconds:.1f} s"),
                ("x real time", f"{self._speed:.1f}"),
            ]
            rows += [("$ an hour of audio", f"{self._cost:.6f}")] if self._price is not None else []
        table = Table(show_header=False)
        for row in rows or [("nothing to do", "")]:
            table.add_row(*row)
        self._console.print(table)
