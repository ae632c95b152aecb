"""Transcribes all sources, several at a time: content, then journal, then the API, then outputs."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from enum import StrEnum
from pathlib import PurePath
from typing import Protocol

from parakeet_stt.cli.files.client import Answer, Client, NoServer, Refused
from parakeet_stt.cli.files.content import Content, describe, open_file
from parakeet_stt.cli.files.formats import form_fields, tells_speakers, write_outputs
from parakeet_stt.cli.files.journal import Entry, Journal, OutputError, Written
from parakeet_stt.cli.files.sources import Source


class Status(StrEnum):
    """What has become of a source."""

    TRANSCRIBED = "transcribed"
    SKIPPED = "skipped"  # it was finished before
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Result:
    """One source. bodies: by format, if there is no journal. outputs: paths below the output folder, by format.

    speakers: those that were told apart, in the order of their first words. error: a sentence, and the HTTP status and
    OpenAI's code behind it, where the API gave one.
    """

    source: Source
    status: Status
    bodies: Mapping[str, bytes] = field(default_factory=dict)
    outputs: Mapping[str, str] = field(default_factory=dict)
    is_truncated: bool = False
    speakers: tuple[str, ...] = ()
    error: str = ""
    http_status: int | None = None
    code: str | None = None


class Watcher(Protocol):
    """Sees how far each source is."""

    def begin(self, source: Source) -> None:
        """It is taken on."""

    def sent(self, source: Source, done: int, size: int) -> None:
        """`done` of `size` bytes of it have been sent; all of them: the server is at work."""

    def waits(self, source: Source, reason: str) -> None:
        """It is asked for again in a moment."""

    def end(self, result: Result) -> None:
        """Nothing more happens to it."""


@dataclass(frozen=True, slots=True)
class Job:
    """What is done to every source.

    asked: fields of the form beside those of the format. asked_digest: of all that decides the answer. journal: None if
    nothing is kept. outputs: paths below the journal's folder. overwrites: whether everything is transcribed again, and
    files that are not ours are overwritten.
    """

    client: Client
    formats: Sequence[str]
    asked: Mapping[str, str | Sequence[str]]
    asked_digest: str
    journal: Journal | None
    outputs: Mapping[Source, Mapping[str, PurePath]]
    overwrites: bool = False


async def run(sources: Sequence[Source], job: Job, watcher: Watcher, at_once: int) -> None:
    """Transcribe all sources, `at_once` at a time. Each has its `Result` at the watcher's.

    Raises NoServer, once nothing more is possible; cancelled, it leaves no output half written.
    """
    worker = _Worker(job, watcher)
    waiting = iter(sources)

    async def work() -> None:
        for source in waiting:
            await worker.transcribe(source)

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(at_once, len(sources))):
                group.create_task(work())
    except* NoServer as group_error:
        raise group_error.exceptions[0] from None


class _Worker:
    def __init__(self, job: Job, watcher: Watcher) -> None:
        self._job, self._watcher = job, watcher
        self._asked = job.asked_digest
        self._locks: defaultdict[str, asyncio.Lock] = defaultdict(asyncio.Lock)  # by content: the same file twice

    async def transcribe(self, source: Source) -> None:
        self._watcher.begin(source)
        try:
            result = await self._transcribe(source)
        except Refused as exc:
            result = Result(source, Status.FAILED, error=exc.message, http_status=exc.status, code=exc.code)
        except (OutputError, ValueError) as exc:
            result = Result(source, Status.FAILED, error=str(exc))
        except OSError as exc:
            result = Result(source, Status.FAILED, error=f"{source.name} can't be read: {exc.strerror or exc}")
        self._watcher.end(result)

    async def _transcribe(self, source: Source) -> Result:
        job = self._job
        known = job.journal.find_source(source.name, self._asked) if job.journal and source.is_address else None
        if known and (found := self._finished(source, known.content, known.validators)) and not job.overwrites:
            validators = known.validators
        else:
            found, validators = None, {}
        async with self._open(source, validators) as opened:
            if opened is None:
                assert found
                return found
            content, validators = opened
            async with self._locks[content.sha256]:
                found = None if job.overwrites else self._finished(source, content.sha256, validators)
                return found or await self._ask(source, content, validators)

    @asynccontextmanager
    async def _open(
        self, source: Source, validators: Mapping[str, str]
    ) -> AsyncIterator[tuple[Content, dict[str, str]] | None]:
        """The content and its validators; None for an address whose content has not changed."""
        async with AsyncExitStack() as closing:
            if not source.is_address:
                yield await closing.enter_async_context(open_file(source)), {}
                return
            fetched = await self._job.client.download(source, validators, lambda why: self._watcher.waits(source, why))
            if fetched is None:
                yield None
                return
            file, validators = fetched
            closing.callback(file.close)
            yield await describe(file, source), validators

    def _finished(self, source: Source, content: str, validators: Mapping[str, str]) -> Result | None:
        """The result of a content all of whose outputs are there. One that lies elsewhere is copied."""
        job = self._job
        if job.journal is None:
            return None
        outputs = job.outputs[source]
        found = {one: job.journal.find(content, self._asked, one, path) for one, path in outputs.items()}
        if not all(found.values()):
            return None
        bodies = {one: body for one, (body, _) in ((one, hit) for one, hit in found.items() if hit)}
        is_truncated = any(hit[1].is_truncated for hit in found.values() if hit)
        speakers = next((hit[1].speakers for hit in found.values() if hit), ())
        misplaced = {one: body for one, body in bodies.items() if not job.journal.has(outputs[one], body)}
        for one in misplaced:
            job.journal.check_free(outputs[one])
        if misplaced:
            self._keep(source, content, misplaced, is_truncated, speakers, validators)
        return Result(source, Status.SKIPPED, outputs=_names(outputs), is_truncated=is_truncated, speakers=speakers)

    async def _ask(self, source: Source, content: Content, validators: Mapping[str, str]) -> Result:
        job, watcher = self._job, self._watcher
        outputs = job.outputs[source]
        if job.journal and not job.overwrites:
            for path in outputs.values():
                job.journal.check_free(path)
        speaks = tells_speakers(job.asked)
        answer: Answer = await job.client.transcribe(
            content,
            {**job.asked, **form_fields(job.formats, speakers=speaks)},
            on_sent=lambda done: watcher.sent(source, done, content.size),
            on_wait=lambda why: watcher.waits(source, why),
        )
        bodies, speakers = write_outputs(answer.body, job.formats, speakers=speaks)
        result = Result(source, Status.TRANSCRIBED, is_truncated=answer.is_truncated, speakers=speakers)
        if job.journal is None:
            return replace(result, bodies=bodies)
        self._keep(source, content.sha256, bodies, answer.is_truncated, speakers, validators)
        return replace(result, outputs=_names(outputs))

    def _keep(  # an entry of the journal
        self,
        source: Source,
        content: str,
        bodies: Mapping[str, bytes],
        is_truncated: bool,
        speakers: tuple[str, ...],
        validators: Mapping[str, str],
    ) -> None:
        assert self._job.journal
        written = {one: Written.of(self._job.outputs[source][one], body) for one, body in bodies.items()}
        entry = Entry(content, self._asked, source.name, written, is_truncated, speakers, dict(validators))
        self._job.journal.write(entry, bodies)


def _names(outputs: Mapping[str, PurePath]) -> dict[str, str]:
    return {one: str(path) for one, path in outputs.items()}
