"""Knows the HTTP routes, and the FastAPI app that holds them. Does not know BentoML, the model, or settings' names.

Keys, limits and counts are the gate's, through which every request has come.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, aclosing, asynccontextmanager
from typing import TypeVar

from fastapi import APIRouter, FastAPI, Request
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException

from parakeet_stt.errors import UnknownModel
from parakeet_stt.offline.transcription import SHORT_SECONDS, Options, Recording
from parakeet_stt.server.files import form as openai_form
from parakeet_stt.server.files import openapi
from parakeet_stt.server.files.form import Fields, TranscriptionRequest
from parakeet_stt.server.files.serving import ServedModel, Serving
from parakeet_stt.server.http import errors as http_errors
from parakeet_stt.server.http.dependencies import Service
from parakeet_stt.server.http.disconnects import unless_gone
from parakeet_stt.server.http.event_stream import Events, event_stream
from parakeet_stt.server.http.responses import JsonAnswer
from parakeet_stt.server.http.shutdown import ending_first
from parakeet_stt.server.live import routes as live_routes
from parakeet_stt.text import formats

T = TypeVar("T")
MEDIA_TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}
SEED_FIELDS = ("file", "include_timestamps", "should_chunk")


routes = APIRouter(responses=openapi.ERRORS)


@routes.post("/v1/audio/transcriptions", **openapi.TRANSCRIPTION)
async def create_transcription(request: Request, serving: Service) -> Response:
    """OpenAI's transcription: the text of a recording, in the format asked for."""
    async with AsyncExitStack() as closing:
        form = await closing.enter_async_context(request.form())
        wanted = openai_form.parse(form, served=serving.model.name, languages=serving.model.languages)
        if wanted.stream:
            events = _events(serving, wanted, closing.pop_all())
            return await event_stream(request, events, patience=serving.settings.request_timeout_seconds)
        recording = await unless_gone(request, serving.transcribe(wanted.file.file, wanted.options))
    if wanted.response_format == "verbose_json":
        words, segments = "word" in wanted.granularities, "segment" in wanted.granularities
        return await _made(
            recording, lambda: JsonAnswer(formats.as_verbose_json(recording, words=words, segments=segments))
        )
    return await _answer(recording, wanted)


@routes.post("/v1/audio/translations", **openapi.TRANSLATION)
async def create_translation(request: Request, serving: Service) -> Response:
    """OpenAI's translation to English, of recordings in English: the model knows no other language."""
    async with request.form() as form:
        wanted = openai_form.parse_translation(form, served=serving.model.name, languages=serving.model.languages)
        recording = await unless_gone(request, serving.transcribe(wanted.file.file, wanted.options))
    if wanted.response_format == "verbose_json":
        return await _made(recording, lambda: JsonAnswer(formats.as_verbose_translation(recording)))
    if wanted.response_format == "json":
        return await _made(recording, lambda: JsonAnswer({"text": recording.transcript.text}))
    return await _answer(recording, wanted)


async def _events(serving: Serving, wanted: TranscriptionRequest, closing: AsyncExitStack) -> Events:
    """The text piece by piece, then all of it. closing: what is to be closed in the end."""
    async with closing, serving.transcription(wanted.file.file, wanted.options) as transcription:
        first = True
        async with aclosing(transcription.words()) as pieces:
            async for words in pieces:
                yield formats.as_delta(words, first=first, logprobs=wanted.logprobs)
                first = False
        recording = await transcription.recording()
        yield await _made(recording, lambda: formats.as_done(recording.transcript, logprobs=wanted.logprobs))


async def _answer(recording: Recording, wanted: TranscriptionRequest) -> Response:
    """In one of the formats that transcriptions and translations share."""
    if wanted.response_format == "json":
        return await _made(
            recording, lambda: JsonAnswer(formats.as_json(recording.transcript, logprobs=wanted.logprobs))
        )
    write, media_type = formats.WRITERS[wanted.response_format], MEDIA_TYPES[wanted.response_format]
    return await _made(recording, lambda: PlainTextResponse(write(recording.transcript), media_type=media_type))


async def _made(recording: Recording, make: Callable[[], T]) -> T:
    """What `make` makes of a recording; in a thread if that could take long enough to stall the event loop."""
    made = make() if recording.transcript.duration <= SHORT_SECONDS else await asyncio.to_thread(make)
    if recording.is_truncated and isinstance(made, Response):
        made.headers["x-audio-truncated"] = "true"
    return made


@routes.post("/transcribe", **openapi.SEED)
async def transcribe(request: Request, serving: Service) -> Response:
    """The original wrapper's endpoint: text, and NeMo's own timestamps if asked for."""
    async with request.form() as form:
        fields = Fields(form, SEED_FIELDS, others=True)
        upload, cut = fields.file(), fields.flag("should_chunk", default=True)
        stamped = fields.flag("include_timestamps", default=False)
        recording = await unless_gone(request, serving.transcribe(upload.file, Options(cut=cut)))
    transcript = recording.transcript
    return await _made(
        recording,
        lambda: JsonAnswer(
            {"text": transcript.text, "timestamps": formats.as_nemo_timestamps(transcript) if stamped else None}
        ),
    )


def _model_card(model: ServedModel) -> openapi.Model:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": model.owned_by}


@routes.get("/v1/models")
async def list_models(serving: Service) -> openapi.Models:
    """The one model that is served."""
    return {"object": "list", "data": [_model_card(serving.model)]}


@routes.get("/v1/models/{name:path}")
async def retrieve_model(name: str, serving: Service) -> openapi.Model:
    """The served model, by its name."""
    if name != serving.model.name:
        raise UnknownModel(f"model: {name!r} is not served here; {serving.model.name!r} is", param="model")
    return _model_card(serving.model)


@routes.get("/debug/cfg", response_class=PlainTextResponse)
async def debug_config(serving: Service) -> str:
    """The active NeMo configuration as YAML."""
    return serving.model.config


@routes.get("/metrics", include_in_schema=False)
async def metrics(serving: Service) -> Response:
    """What is counted, for Prometheus."""
    body, media_type = serving.metrics.exposition()
    return Response(body, media_type=media_type)


@routes.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The routes, to read and to try; the page's parts come from here too, not from elsewhere."""
    return openapi.page()


@routes.get("/docs/{name}", include_in_schema=False)
async def docs_asset(name: str) -> Response:
    """A part of that page."""
    if name not in openapi.ASSETS:
        raise HTTPException(404)
    return openapi.asset(name)


@routes.api_route(
    "/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], include_in_schema=False
)
async def unknown(path: str, request: Request) -> None:
    """Everything else: the envelope, not BentoML's plain text; 405 where only the method is wrong."""
    allowed = {
        method
        for route in (*live_routes.routes.routes, *routes.routes[:-1])
        if getattr(route, "path_regex").match(f"/{path}")  # noqa: B009
        for method in getattr(route, "methods", ())
    }
    if allowed:
        raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
    raise HTTPException(404)


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def finish() -> None:
        serving: Serving = app.state.serving
        await serving.occupancy.end(serving.settings.drain_seconds)

    async with ending_first(finish):
        yield


def create_app() -> FastAPI:
    """The app without its service: set `app.state.serving` before the first request."""
    app = FastAPI(
        title=openapi.TITLE, description=openapi.DESCRIPTION, docs_url=None, redoc_url=None, lifespan=_lifespan
    )
    app.include_router(live_routes.routes)
    app.include_router(routes)
    http_errors.install(app)
    return app
