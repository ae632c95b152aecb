"""`parakeet models`: the catalogue, and which of its models are on this machine."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from importlib.util import find_spec
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from parakeet_stt.errors import StartupError

if TYPE_CHECKING:
    from parakeet_stt.engines.catalogue import CatalogueEntry, Kind


@dataclass(frozen=True, slots=True)
class Listed:
    """A model of the catalogue. here: whether it can be served now. note: where it is, or what to do to have it.

    languages: none of a diarizer.
    """

    name: str
    languages: tuple[str, ...]
    licence: str
    origin: Literal["bundled", "published"]
    here: bool
    note: str


def models(
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a line.")] = False,
) -> None:
    """List the models that can be served by name, and where they are on this machine."""
    from parakeet_stt.engines.catalogue import CATALOGUE, DIARIZER, DIARIZERS, RECOGNIZER

    listed = [_look_up(entry, RECOGNIZER) for entry in CATALOGUE.values()]
    listed += [_look_up(entry, DIARIZER) for entry in DIARIZERS.values()]
    if as_json:
        for one in listed:
            typer.echo(json.dumps(dataclasses.asdict(one)))
        return
    width = max(len(one.name) for one in listed)
    for one in listed:
        languages = "en" if one.languages == ("en",) else f"{len(one.languages)} languages"
        languages = languages if one.languages else "speakers"
        mark = "✓" if one.here else "–"
        typer.echo(f"{mark} {one.name:{width}}  {languages:12}  {one.licence:10}  {one.note}")


def _look_up(entry: CatalogueEntry, kind: Kind) -> Listed:
    from parakeet_stt.engines import catalogue

    described = (entry.name, entry.languages, entry.licence)
    if entry.bundled:
        return Listed(*described, "bundled", True, f"{entry.bundled} (for demonstrations only)")
    if find_spec("bentoml") is None:
        return Listed(*described, "published", False, "needs: pip install 'parakeet-stt[engine,serve]'")
    try:
        source = catalogue.resolve(entry.name, kind=kind)
    except StartupError as exc:
        is_damaged = "damaged" in exc.message
        return Listed(*described, "published", False, exc.message if is_damaged else f"parakeet fetch {entry.name}")
    return Listed(*described, "published", True, str(source.path))
