"""How the commands end: the exit statuses that scripts can rely on, and what a missing extra is reported as."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from enum import IntEnum

import typer


class Exit(IntEnum):
    """The status of a command that did not do all that it was asked for; docs/command.md describes them."""

    FAILED = 1  # some of it
    USAGE = 2  # typer's own, of wrong arguments
    NO_SERVER = 3  # the server can't be reached, or refuses the key or the model
    INTERRUPTED = 130  # by Ctrl-C or SIGTERM, as shells have it


@contextmanager
def needs_extras(*extras: str) -> Iterator[None]:
    """What runs in this context imports libraries of these extras; ends the command, with what to install, without."""
    try:
        yield
    except ModuleNotFoundError as exc:
        wanted = f"pip install 'parakeet-stt[{','.join(extras)}]'"
        typer.echo(f"parakeet: {exc.name} is not installed, and this command needs it: {wanted}", err=True)
        raise typer.Exit(Exit.FAILED) from exc
