"""`parakeet transcribe`: files, folders, patterns and addresses → transcripts, by a server or without one."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from parakeet_stt.cli.exits import Exit
from parakeet_stt.cli.server import DEFAULT_URL, ApiKey, Url, api_url

CHANNELS = ("mixed", "separate")
FORMATS = ("txt", "srt", "vtt", "json")


def transcribe(  # each parameter is an option of the command
    sources: Annotated[
        list[str], typer.Argument(metavar="FILES|FOLDERS|GLOBS|URLS", help="What to transcribe; - is standard input.")
    ],
    formats: Annotated[
        str, typer.Option("--format", "-f", help=f"Comma-separated: {', '.join(FORMATS)} (with words and segments).")
    ] = "txt",
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="Folder of the outputs. Without it they are printed.")
    ] = None,
    at_once: Annotated[int, typer.Option("-n", min=1, max=1024, help="How many are transcribed at once.")] = 8,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    is_local: Annotated[bool, typer.Option("--local", help="Without a server: this command starts one.")] = False,
    model: Annotated[
        str | None,
        typer.Option(help="As the server names it, whisper-1 by default; with --local, as STT_MODEL takes it."),
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of the recordings, as en.")] = None,
    keywords: Annotated[list[str] | None, typer.Option("--keyword", help="To prefer; may be repeated.")] = None,
    prompt: Annotated[str | None, typer.Option(help="Its names and rare words are preferred.")] = None,
    speakers: Annotated[
        bool, typer.Option("--speakers", help="Say who speaks, in every format. The server needs a diarizer.")
    ] = False,
    channels: Annotated[str, typer.Option(help=f"{' or '.join(CHANNELS)}: a speaker for each channel.")] = "mixed",
    diarizer: Annotated[str | None, typer.Option(help="With --local --speakers, as STT_DIARIZER takes it.")] = None,
    overwrites: Annotated[bool, typer.Option("--force", help="Do all again, and overwrite what is there.")] = False,
    give_up: Annotated[float, typer.Option(min=0, help="Seconds that the server may be away.")] = 120.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object a recording on standard output.")] = False,
    is_quiet: Annotated[bool, typer.Option("--quiet", "-q", help="No bars and no summary, only failures.")] = False,
) -> None:
    """Transcribe recordings. Those that were finished are skipped when it is started again."""
    from parakeet_stt.cli.files.command import Request, execute
    from parakeet_stt.cli.files.sources import WrongArguments

    wanted = tuple(dict.fromkeys(one.strip() for one in formats.split(",")))
    if unknown := [one for one in wanted if one not in FORMATS]:
        raise typer.BadParameter(f"{unknown[0]!r} is none of {', '.join(FORMATS)}", param_hint="--format")
    if channels not in CHANNELS:
        raise typer.BadParameter(f"{channels!r} is none of {', '.join(CHANNELS)}", param_hint="--channels")
    if diarizer and not is_local:
        raise typer.BadParameter("it is for the server that --local starts", param_hint="--diarizer")
    asked: dict[str, str | list[str]] = {"model": "whisper-1" if is_local or not model else model}
    asked |= {name: value for name, value in (("language", language), ("prompt", prompt)) if value}
    if keywords:
        asked["keywords[]"] = keywords
    if speakers:
        asked["speakers"] = "true"
    if channels != "mixed":
        asked["channels"] = channels
    settings = {"STT_MODEL": model, "STT_DIARIZER": diarizer} if is_local else {}
    local = {name: value for name, value in settings.items() if value}
    request = Request(
        arguments=sources, formats=wanted, out=out, asked=asked, url=api_url(url), key=api_key, at_once=at_once,
        is_local=is_local, local_settings=local, overwrites=overwrites, give_up_seconds=give_up,
        as_json=as_json, is_quiet=is_quiet,
    )  # fmt: skip
    try:
        status = execute(request)
    except WrongArguments as exc:
        raise typer.BadParameter(str(exc)) from exc
    except KeyboardInterrupt:
        status = Exit.INTERRUPTED
    raise typer.Exit(status)
