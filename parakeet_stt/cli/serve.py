"""`parakeet serve`: the service, as `make serve` starts it, from a checkout or from an installed wheel."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated

import typer

from parakeet_stt.cli.exits import Exit, require

PACKAGE = Path(__file__).parents[1]


def serve(
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=1, max=65535, help="Port to listen on.")] = 3000,
    model: Annotated[
        str | None,
        typer.Option(help="As STT_MODEL: a catalogue name, a .nemo file, a tag of the BentoML store."),
    ] = None,
) -> None:
    """Serve OpenAI's audio API. Settings come from the environment or a file .env, as .env.example lists them."""
    require("bentoml", "torch", extras=("engine", "serve"))
    command = [*serve_command(), "--host", host, "--port", str(port)]
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    if model is not None:
        os.environ["STT_MODEL"] = model
    sys.stdout.flush()
    os.execv(sys.executable, command)  # noqa: S606  # BentoML becomes this process: its signals and its exit status


def serve_command() -> list[str]:
    """The command that serves the service, but for its address. Its settings' `.env` is that of the working folder."""
    installed, checkout = PACKAGE / "bento" / "service.py", PACKAGE.parent / "service.py"
    if installed.is_file():
        # BentoML looks for modules in the working folder first.
        if Path("parakeet_stt").is_dir() and not Path("parakeet_stt").samefile(PACKAGE):
            typer.echo(
                "parakeet: this folder holds another parakeet_stt, which would be served: run it in another folder, or "
                "this checkout's own with `python -m parakeet_stt serve`",
                err=True,
            )
            raise typer.Exit(Exit.FAILED)
        return [sys.executable, "-m", "bentoml", "serve", "parakeet_stt.bento.service:ParakeetSTT"]
    return [sys.executable, "-m", "bentoml", "serve", "service:ParakeetSTT", "--working-dir", str(checkout.parent)]
