"""The routes that take a file: OpenAI's transcriptions and translations, and the original wrapper's `/transcribe`."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AsyncExitStack, aclosing
from typing import TypeVar

from fastapi import APIRouter, Request
from fastapi.responses import PlainTextResponse, Response

from parakeet_stt.offline.transcription import SHORT_SECONDS, Transcription
from parakeet_stt.server.dependencies import Config, Model, PlainRoute, Transcriber
from parakeet_stt.server.files import form, openapi
from parakeet_stt.server.files.bento import NATIVE_PATH
from parakeet_stt.server.files.form import TranscriptionRequest
from parakeet_stt.server.files.transcriber import FileTranscriber
from parakeet_stt.server.files.uploads import open_form
from parakeet_stt.server.http.disconnects import cancel_on_disconnect
from parakeet_stt.server.http.event_stream import Events, stream_events
from parakeet_stt.server.http.openapi import ERRORS
from parakeet_stt.server.http.responses import LazyJSONResponse
from parakeet_stt.text.diarized_json import render_segment
from parakeet_stt.text.formats import TRANSCRIPTION_FORMATS, Detail, Format, render_nemo_timestamps
from parakeet_stt.text.openai_json import Done, render_delta, render_done
from parakeet_stt.text.transcript import Recording

T = TypeVar("T")
router = APIRouter(responses=ERRORS, route_class=PlainRoute)


@router.post("/v1/audio/transcriptions", **openapi.TRANSCRIPTION)
async def create_transcription(request: Request, transcriber: Transcriber, model: Model, settings: Config) -> Response:
    """OpenAI's transcription: the text of a recording, in the format asked for."""
    async with AsyncExitStack() as closing:
        fields = await closing.enter_async_context(open_form(request))
        asked = form.parse_transcription(fields, model, unknown=settings.unknown_fields)
        if asked.stream:
            events = _events(transcriber, asked, closing.pop_all())
            return await stream_events(request, events, event_seconds=settings.request_timeout_seconds)
        recording = await cancel_on_disconnect(request, transcriber.transcribe(asked.file.file, asked.options))
    return await _respond(recording, asked.format, asked.detail)


@router.post("/v1/audio/translations", **openapi.TRANSLATION)
async def create_translation(request: Request, transcriber: Transcriber, model: Model, settings: Config) -> Response:
    """OpenAI's translation to English, of recordings in English: the model knows no other language."""
    async with open_form(request) as fields:
        asked = form.parse_translation(fields, model, unknown=settings.unknown_fields)
        recording = await cancel_on_disconnect(request, transcriber.transcribe(asked.file.file, asked.options))
    return await _respond(recording, asked.format, asked.detail)


@router.post("/transcribe", **openapi.SEED)
async def transcribe(request: Request, transcriber: Transcriber, model: Model) -> Response:
    """The original wrapper's endpoint: text, and NeMo's own timestamps if asked for."""
    async with open_form(request) as fields:
        asked = form.parse_seed(fields, model)
        recording = await cancel_on_disconnect(request, transcriber.transcribe(asked.file.file, asked.options))
    transcript = recording.transcript

    def make() -> Response:
        timestamps = render_nemo_timestamps(transcript) if asked.include_timestamps else None
        return LazyJSONResponse({"text": transcript.text, "timestamps": timestamps})

    return _mark_truncated(await _compute(recording, make), recording)


@router.post(NATIVE_PATH, include_in_schema=False)
async def transcribe_natively(request: Request, transcriber: Transcriber, model: Model) -> Response:
    """BentoML's own client, and BentoCloud's playground: OpenAI's verbose_json, with words and segments."""
    async with open_form(request) as fields:
        asked = form.parse_native(fields, model)
        recording = await cancel_on_disconnect(request, transcriber.transcribe(asked.file.file, asked.options))
    return await _respond(recording, TRANSCRIPTION_FORMATS["verbose_json"], Detail(words=True, segments=True))


async def _events(transcriber: FileTranscriber, asked: TranscriptionRequest, closing: AsyncExitStack) -> Events:
    """The text piece by piece, then all of it. closing: what is to be closed at the end."""
    detail = asked.detail
    async with closing, transcriber.open(asked.file.file, asked.options) as transcription:
        if asked.format.needs_speakers:
            async with aclosing(_speaker_events(transcription, detail)) as events:
                async for event in events:
                    yield event
        else:
            is_first = True
            async with aclosing(transcription.words()) as pieces:
                async for words in pieces:
                    yield render_delta(words, is_first=is_first, times=detail.words, logprobs=detail.logprobs)
                    is_first = False
        recording = await transcription.recording()

        def make() -> Done:
            return render_done(
                recording,
                words=detail.words,
                segments=detail.segments,
                logprobs=detail.logprobs,
                coverage=detail.coverage,
                languages=detail.languages,
            )

        yield await _compute(recording, make)


async def _speaker_events(transcription: Transcription, detail: Detail) -> Events:
    """For each segment of one speaker, once it is final, its text and then the segment."""
    count = 0
    async with aclosing(transcription.segments()) as pieces:
        async for segments in pieces:
            for segment in segments:
                rendered = render_segment(segment, count)
                delta = render_delta(segment.words, is_first=not count, times=detail.words, logprobs=detail.logprobs)
                yield {**delta, "segment_id": rendered["id"]}
                yield rendered
                count += 1


async def _respond(recording: Recording, chosen: Format, detail: Detail) -> Response:
    """The recording in the chosen format."""

    def make() -> Response:
        body = chosen.write(recording, detail)
        if isinstance(body, str):
            return PlainTextResponse(body, media_type=chosen.media_type)
        return LazyJSONResponse(body, media_type=chosen.media_type)

    return _mark_truncated(await _compute(recording, make), recording)


async def _compute(recording: Recording, make: Callable[[], T]) -> T:
    """Run `make`; in a thread for a long recording, where it would stall the event loop."""
    return make() if recording.transcript.duration <= SHORT_SECONDS else await asyncio.to_thread(make)


def _mark_truncated(response: Response, recording: Recording) -> Response:
    if recording.is_truncated:
        response.headers["x-audio-truncated"] = "true"
    return response
