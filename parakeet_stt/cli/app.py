"""Puts the commands together: one line each."""

from __future__ import annotations

from typing import Annotated

import typer

from parakeet_stt.cli.bulk import bulk
from parakeet_stt.cli.fetch import fetch
from parakeet_stt.cli.live import live
from parakeet_stt.cli.measuring.bench import bench
from parakeet_stt.cli.measuring.evaluate import evaluate
from parakeet_stt.cli.models import models
from parakeet_stt.cli.serve import serve
from parakeet_stt.cli.transcribe import transcribe

app = typer.Typer(
    name="parakeet",
    help="Speech to text with Parakeet: serve it, transcribe files and live speech, measure any server.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command()(transcribe)
app.command()(bulk)
app.command()(live)
app.command()(serve)
app.command()(fetch)
app.command()(models)
app.command()(evaluate)
app.command()(bench)


def _show_version(is_asked: bool) -> None:
    if is_asked:
        from importlib import metadata

        try:
            version = metadata.version("parakeet-stt")
        except metadata.PackageNotFoundError:
            version = "of a checkout"
        typer.echo(f"parakeet {version}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show it.")] = False,
) -> None:
    pass


def main() -> None:
    """The entry point."""
    app()
