"""Runs `parakeet transcribe`: puts its parts together, and says how it ended."""

from __future__ import annotations

import asyncio
import signal
import time
from collections.abc import Mapping, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass
from pathlib import Path, PurePath

from parakeet_stt.cli.exits import Exit
from parakeet_stt.cli.files import runner
from parakeet_stt.cli.files.client import Client, NoServer
from parakeet_stt.cli.files.journal import Journal, OutputError, digest_of
from parakeet_stt.cli.files.private_server import private_server
from parakeet_stt.cli.files.runner import Job, Status
from parakeet_stt.cli.files.show import Screen
from parakeet_stt.cli.files.sources import Source, WrongArguments, choose_outputs, find_sources

# What the journal calls settings of a private server.
_JOURNAL_NAMES = {"STT_MODEL": "local_model", "STT_DIARIZER": "local_diarizer"}
Outputs = Mapping[Source, Mapping[str, PurePath]]


@dataclass(frozen=True, slots=True)
class Request:
    """What the caller asks for; see `cli/transcribe.py`. asked: fields of the form beside those of the format.

    local_settings: environment of the server that `is_local` starts.
    """

    arguments: Sequence[str]
    formats: Sequence[str]
    out: Path | None
    asked: Mapping[str, str | Sequence[str]]
    url: str
    key: str
    at_once: int
    is_local: bool
    local_settings: Mapping[str, str]
    overwrites: bool
    give_up_seconds: float
    as_json: bool
    is_quiet: bool


def execute(request: Request) -> int:
    """Transcribe, and return the exit status. Raises WrongArguments, and KeyboardInterrupt when it was stopped."""
    sources = find_sources(request.arguments)
    if request.out is None and len(request.formats) > 1 and not request.as_json:
        raise WrongArguments("several formats can't be printed: --out names a folder for them")
    outputs = choose_outputs(sources, request.formats)
    with ExitStack() as closing:
        screen = closing.enter_context(
            Screen(sources, as_json=request.as_json, is_kept=request.out is not None, is_quiet=request.is_quiet)
        )
        try:
            journal = closing.enter_context(Journal.opened(request.out)) if request.out else None
        except OutputError as exc:
            raise WrongArguments(str(exc)) from exc
        began = time.monotonic()
        try:
            asyncio.run(_run(request, sources, journal, outputs, screen))
            status = Exit.FAILED if screen.counts[Status.FAILED] else 0
        except NoServer as exc:
            screen.say(f"parakeet: {exc}")
            status = Exit.NO_SERVER
        except (KeyboardInterrupt, asyncio.CancelledError):
            status = Exit.INTERRUPTED
        if not request.is_quiet:
            screen.say(_summary(screen, len(sources), time.monotonic() - began))
        return status


async def _run(
    request: Request, sources: Sequence[Source], journal: Journal | None, outputs: Outputs, screen: Screen
) -> None:
    task = asyncio.current_task()
    assert task
    with suppress(NotImplementedError):  # on Windows
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)  # as Ctrl-C does
    async with AsyncExitStack() as closing:
        url, key = request.url, request.key
        if request.is_local:
            if not request.is_quiet:
                screen.say("starting a private server ...")
            private = await closing.enter_async_context(private_server(request.local_settings))
            url, key = private.url, private.key
        client = Client(url, key, connections=request.at_once, give_up_seconds=request.give_up_seconds)
        closing.push_async_callback(client.close)
        local = {_JOURNAL_NAMES[name]: value for name, value in request.local_settings.items()}
        asked_digest = digest_of({**request.asked, "local_model": None, **local})
        job = Job(client, request.formats, request.asked, asked_digest, journal, outputs, request.overwrites)
        await runner.run(sources, job, screen, request.at_once)


def _summary(screen: Screen, count: int, seconds: float) -> str:
    done, skipped, failed = (screen.counts[status] for status in Status)
    rest = count - done - skipped - failed
    parts = [f"{done} transcribed in {seconds:.1f} s"]
    parts += [f"{skipped} finished before"] if skipped else []
    parts += [f"{failed} failed"] if failed else []
    parts += [f"{rest} not done: the same command goes on"] if rest else []
    return ", ".join(parts)
