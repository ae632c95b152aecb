"""`parakeet live`: words of a microphone, or of raw PCM on standard input, as they are spoken."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from parakeet_stt.cli.exits import Exit
from parakeet_stt.cli.server import DEFAULT_URL, ApiKey, Url, api_url

if TYPE_CHECKING:
    from parakeet_stt.cli.captions.session import Wishes
    from parakeet_stt.cli.captions.sound import Sound
    from parakeet_stt.cli.captions.words import Captions

DELAYS = ("minimal", "low", "medium", "high", "xhigh")


def live(  # each parameter is an option of the command
    source: Annotated[
        str, typer.Argument(metavar="-", help="- reads raw PCM from standard input: int16, little-endian, mono.")
    ] = "",
    rate: Annotated[int, typer.Option(min=8000, max=48000, help="Of that PCM, in Hz.")] = 16_000,
    srt: Annotated[Path | None, typer.Option(metavar="FILE", help="Write captions there at the end.")] = None,
    url: Url = DEFAULT_URL,
    api_key: ApiKey = "",
    device: Annotated[str | None, typer.Option(help="Number of a microphone, or a part of its name.")] = None,
    shows_devices: Annotated[bool, typer.Option("--devices", help="List the microphones, and end.")] = False,
    delay: Annotated[
        str | None, typer.Option(help=f"How long to wait before showing words: {', '.join(DELAYS)}.")
    ] = None,
    language: Annotated[str | None, typer.Option(help="Of the speech, as en.")] = None,
    keywords: Annotated[list[str] | None, typer.Option("--keyword", help="To prefer; may be repeated.")] = None,
    give_up: Annotated[float, typer.Option(min=0, help="Seconds that the server may be away.")] = 30.0,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object an utterance, once it is final.")] = False,
) -> None:
    """Show what is said while it is said, until the sound ends or Ctrl-C."""
    import asyncio

    from parakeet_stt.cli.captions.session import NoSession, Wishes
    from parakeet_stt.cli.captions.sound import Microphone, NoSound, StandardInput, load_sounddevice
    from parakeet_stt.cli.captions.words import Captions, render_srt

    if source not in ("", "-"):
        raise typer.BadParameter(f"{source!r} is not -; `parakeet transcribe` takes files")
    if delay is not None and delay not in DELAYS:
        raise typer.BadParameter(f"{delay!r} is none of {', '.join(DELAYS)}", param_hint="--delay")
    if srt:
        try:
            srt.open("a").close()  # now, not after an hour of speech
        except OSError as exc:
            raise typer.BadParameter(f"{srt} can't be written: {exc.strerror}", param_hint="--srt") from exc
    wishes = {"language": language, "keywords": keywords, "delay": delay}
    captions = Captions()
    status = 0
    try:
        if shows_devices:
            typer.echo(str(load_sounddevice().query_devices()) or "no sound devices")
            return
        sound: Sound = StandardInput(rate) if source else Microphone(device)
        asked = Wishes({name: value for name, value in wishes.items() if value}, give_up)
        asyncio.run(_caption(api_url(url), api_key, sound, asked, captions, as_json=as_json))
    except NoSound as exc:
        typer.echo(f"parakeet: {exc}", err=True)
        raise typer.Exit(Exit.FAILED) from None
    except NoSession as exc:
        typer.echo(f"\nparakeet: {exc}", err=True)
        status = Exit.NO_SERVER
    except (KeyboardInterrupt, asyncio.CancelledError):
        status = Exit.INTERRUPTED
    if srt:
        srt.write_text(render_srt(captions), encoding="utf-8")
    raise typer.Exit(status)


async def _caption(url: str, key: str, sound: Sound, wishes: Wishes, captions: Captions, *, as_json: bool) -> None:
    """Print words until the sound ends. The first Ctrl-C ends the sound, a second one everything."""
    import asyncio
    import signal

    from parakeet_stt.cli.captions.session import caption

    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task

    def on_signal(act: Callable[[], object]) -> None:
        with suppress(NotImplementedError):  # on Windows, where Ctrl-C ends everything
            for one in (signal.SIGINT, signal.SIGTERM):
                loop.add_signal_handler(one, act)

    def stop() -> None:
        on_signal(task.cancel)
        sound.stop()

    on_signal(stop)

    def show() -> None:
        if not as_json:
            for text in captions.new_text():
                _write(text)
            return
        for one in captions.new_finals():
            line: dict[str, Any] = {"start": one.start, "end": one.end, "text": one.text}
            _write(json.dumps(line, ensure_ascii=False) + "\n")

    def say(reason: str) -> None:
        typer.echo(f"\nparakeet: {reason}; it goes on when the server is back", err=True)

    await caption(url, key, sound, wishes, captions, show, say)


def _write(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()
