"""`parakeet models`: the catalogue, and which of its models are on this machine."""

from __future__ import annotations

import typer


def models() -> None:
    """List the models that can be served by name."""
    from parakeet_stt.engines.catalogue import CATALOGUE

    for name in CATALOGUE:
        typer.echo(name)
