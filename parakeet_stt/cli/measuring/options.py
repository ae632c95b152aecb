"""What both commands take and show: servers, lists of numbers, where the report goes."""

from __future__ import annotations

import math
import shlex
import sys
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, TypeVar
from urllib.parse import urlsplit

import typer

from parakeet_stt.cli.exits import Exit, require
from parakeet_stt.cli.server import api_url

if TYPE_CHECKING:
    from parakeet_stt.measure.api import Target

Number = TypeVar("Number", int, float)
SERVER = "[NAME=]URL[#MODEL]"
ApiKeys = Annotated[
    list[str] | None,
    typer.Option(
        "--api-key",
        envvar="OPENAI_API_KEY",
        help="Bearer key of the first server; given again, of the next. A key is sent to its own server only.",
        show_envvar=True,
    ),
]
Html = Annotated[Path | None, typer.Option("--html", help="Write a report, one file that needs nothing else.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON lines instead of tables.")]


def require_extra() -> None:
    """Ends the command with a sentence if the extra `measure` is not installed."""
    require("jinja2", "kaldialign", "markupsafe", "whisper_normalizer", extras=("measure",))


def parse_servers(given: Iterable[str], keys: Sequence[str] | None) -> list[Target]:
    """Servers as `SERVER` has them; a name is the host and port unless one is given, a model is empty.

    Raises typer.BadParameter for a bad address or a name that comes twice.
    """
    from parakeet_stt.measure.api import Target

    targets = []
    for number, one in enumerate(given):
        name, _, address = one.rpartition("=") if "=" in one.split("://")[0] else ("", "", one)
        address, _, model = address.partition("#")
        url = api_url(address)
        key = keys[number] if keys and number < len(keys) else ""
        targets.append(Target(name or urlsplit(url).netloc, url, model, key))
    names = [target.name for target in targets]
    if twice := {name for name in names if names.count(name) > 1}:
        raise typer.BadParameter(f"{', '.join(twice)} comes twice; name servers as {SERVER}")
    return targets


def parse_numbers(text: str, kind: Callable[[str], Number], name: str) -> tuple[Number, ...]:
    """Numbers above 0 that commas separate; none in an empty text. name: of the option, for the error."""
    try:
        numbers = tuple(kind(part) for part in text.split(",") if part.strip())
    except ValueError:
        numbers = (kind("0"),)
    if any(not 0 < number < math.inf for number in numbers):
        raise typer.BadParameter(f"{text!r}: numbers above 0, separated by commas, as 1,8,32", param_hint=name)
    return numbers


def command_line() -> str:
    """The command as it was typed, for the report; keys are left out."""
    words = ["parakeet", *sys.argv[1:]]
    hidden = ["…" if before == "--api-key" else word for before, word in zip(["", *words], words, strict=False)]
    return shlex.join(word if not word.startswith("--api-key=") else "--api-key=…" for word in hidden)


def show_table(title: str, headings: Sequence[str], rows: Iterable[Sequence[str]], *, names: int = 1) -> None:
    """Print a table. names: so many first columns are text; the others are figures."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=None, pad_edge=False, padding=(0, 2, 0, 0))
    for number, heading in enumerate(headings):
        table.add_column(heading, justify="left" if number < names else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console()
    wide = Console(width=max(console.width, console.measure(table, options=console.options.update(width=500)).maximum))
    wide.print(table)  # a terminal that is too narrow breaks lines, which keeps every figure
    wide.print()


def write_report(path: Path | None, page: Callable[[], str]) -> None:
    """Write the page, if there is a path for it."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(page(), "utf-8")
    except OSError as error:
        typer.echo(f"parakeet: {path} could not be written: {error}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    typer.echo(f"Written: {path}", err=True)


def to_json(value: Any) -> str:
    """One JSON line; figures that do not exist are null."""
    import json

    def clean(one: Any) -> Any:
        if isinstance(one, float):
            return round(one, 4) if math.isfinite(one) else None
        if isinstance(one, dict):
            return {name: clean(part) for name, part in one.items()}
        return [clean(part) for part in one] if isinstance(one, list | tuple) else one

    return json.dumps(clean(value), ensure_ascii=False)
