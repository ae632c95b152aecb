"""How the commands end: the exit statuses that scripts can rely on, and what a missing extra is reported as."""

from __future__ import annotations

from enum import IntEnum
from importlib.util import find_spec

import typer


class Exit(IntEnum):
    """The status of a command that did not do all that it was asked for; docs/command.md describes them."""

    FAILED = 1  # some of it
    USAGE = 2  # typer's own, of wrong arguments
    NO_SERVER = 3  # the server can't be reached, refuses the key or the model, or can't tell speakers
    INTERRUPTED = 130  # by Ctrl-C or SIGTERM, as shells have it


def require(*modules: str, extras: tuple[str, ...]) -> None:
    """Ends the command, saying what to install, if one of these modules of these extras is not installed."""
    for module in modules:
        if find_spec(module) is None:
            wanted = f"pip install 'parakeet-stt[{','.join(extras)}]'"
            typer.echo(f"parakeet: {module} is not installed, and this command needs it: {wanted}", err=True)
            raise typer.Exit(Exit.FAILED)
