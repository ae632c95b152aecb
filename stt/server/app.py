"""Knows the HTTP routes, and the FastAPI app that holds them. Does not know BentoML, the model, or settings' names."""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Callable, Coroutine
from typing import Annotated, Any, TypeVar

from fastapi import APIRouter, Depends, FastAPI, Request
from fastapi.responses import JSONResponse, PlainTextResponse, Response
from fastapi.routing import APIRoute
from pydantic import BaseModel
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt import formats
from stt.errors import NotAuthorized, UnknownModel, UploadTooLarge
from stt.server import http_errors, openai_form
from stt.server.accounting import Accounting
from stt.server.serving import ServedModel, Serving

T = TypeVar("T")
DISCONNECT_POLL_SECONDS = 0.5
MEDIA_TYPES = {"text": "text/plain", "srt": "application/x-subrip", "vtt": "text/vtt"}


def serving_of(request: Request) -> Serving:
    """The service that answers this request; set by whoever composed the app."""
    serving: Serving = request.app.state.serving
    return serving


def guard(request: Request) -> None:
    """Let the request pass if no keys are set, or it carries one of them.

    Raises NotAuthorized, or UploadTooLarge by the announced length.
    """
    settings = serving_of(request).settings
    keys = settings.api_keys
    scheme, _, given = request.headers.get("authorization", "").partition(" ")
    # Every key is compared, each in constant time, so that the time tells nothing about any of them.
    known = [hmac.compare_digest(given.strip().encode("latin-1"), key.get_secret_value().encode()) for key in keys]
    if keys and not (scheme.lower() == "bearer" and any(known)):
        raise NotAuthorized("Incorrect or missing API key: send `Authorization: Bearer <key>`.")
    if int(request.headers.get("content-length") or 0) > settings.max_upload_bytes:
        raise too_large(settings.max_upload_bytes)


def too_large(limit: int) -> UploadTooLarge:
    """The refusal of a body over `limit` bytes."""
    return UploadTooLarge(f"The request body is larger than the limit of {limit} bytes.", param="file")


def bounded(receive: Receive, limit: int) -> Receive:
    """`receive`, which raises UploadTooLarge once the body has more than `limit` bytes, announced or not."""
    received = 0

    async def receive_bounded() -> Message:
        nonlocal received
        message = await receive()
        received += len(message.get("body", b""))
        if received > limit:
            raise too_large(limit)
        return message

    return receive_bounded


async def unless_gone(request: Request, work: Coroutine[Any, Any, T]) -> T:
    """The result of `work`, which is cancelled when the caller leaves: nothing tells a handler that by itself.

    Raises ClientDisconnect then.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=DISCONNECT_POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()


Service = Annotated[Serving, Depends(serving_of)]


class GuardedRoute(APIRoute):
    """A route that is guarded before FastAPI reads the body, as a dependency would not be."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """The route's own handler, behind `guard`."""
        handle = super().get_route_handler()

        async def guarded(request: Request) -> Response:
            guard(request)
            limit = serving_of(request).settings.max_upload_bytes
            return await handle(Request(request.scope, bounded(request.receive, limit)))

        return guarded


routes = APIRouter(route_class=GuardedRoute)


class SeedTranscription(BaseModel):
    """What the original wrapper's `/transcribe` answers."""

    text: str
    timestamps: dict[str, list[dict[str, Any]]] | None


TRANSCRIPTION_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file", "model"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "model": {"type": "string"},
                        "language": {"type": "string"},
                        "prompt": {"type": "string"},
                        "response_format": {"type": "string", "enum": list(openai_form.FORMATS), "default": "json"},
                        "temperature": {"type": "number", "minimum": 0, "maximum": 1, "default": 0},
                        "include[]": {"type": "array", "items": {"type": "string", "enum": ["logprobs"]}},
                        "timestamp_granularities[]": {
                            "type": "array",
                            "items": {"type": "string", "enum": list(openai_form.GRANULARITIES)},
                        },
                    },
                }
            }
        },
    }
}


SEED_BODY = {
    "requestBody": {
        "required": True,
        "content": {
            "multipart/form-data": {
                "schema": {
                    "type": "object",
                    "required": ["file"],
                    "properties": {
                        "file": {"type": "string", "format": "binary"},
                        "include_timestamps": {"type": "boolean", "default": False},
                        "should_chunk": {"type": "boolean", "default": True},
                    },
                }
            }
        },
    }
}


@routes.post("/v1/audio/transcriptions", openapi_extra=TRANSCRIPTION_BODY, response_model=None)
async def create_transcription(request: Request, serving: Service) -> Response:
    """OpenAI's transcription endpoint."""
    async with request.form() as form:
        wanted = openai_form.parse(form, served=serving.model.name, languages=serving.model.languages)
        recording = await unless_gone(request, serving.transcribe(wanted.file.file, language=wanted.language))
    if wanted.response_format == "verbose_json":
        body = await asyncio.to_thread(
            formats.as_verbose_json,
            recording,
            words="word" in wanted.granularities,
            segments="segment" in wanted.granularities,
        )
        return JSONResponse(body)
    if wanted.response_format == "json":
        return JSONResponse(formats.as_json(recording.transcript, logprobs=wanted.logprobs))
    write = formats.WRITERS[wanted.response_format]
    return PlainTextResponse(write(recording.transcript), media_type=MEDIA_TYPES[wanted.response_format])


@routes.post("/transcribe", openapi_extra=SEED_BODY)
async def transcribe(request: Request, serving: Service) -> SeedTranscription:
    """The original wrapper's endpoint: text, and NeMo's own timestamps if asked for."""
    async with request.form() as form:
        upload, cut = openai_form.upload_of(form), openai_form.flag(form, "should_chunk", default=True)
        stamped = openai_form.flag(form, "include_timestamps", default=False)
        recording = await unless_gone(request, serving.transcribe(upload.file, cut=cut))
    timestamps = await asyncio.to_thread(formats.as_nemo_timestamps, recording.transcript) if stamped else None
    return SeedTranscription(text=recording.transcript.text, timestamps=timestamps)


def _model_card(model: ServedModel) -> dict[str, Any]:
    return {"id": model.name, "object": "model", "created": model.created, "owned_by": model.owned_by}


@routes.get("/v1/models")
async def list_models(serving: Service) -> dict[str, Any]:
    """The one model that is served."""
    return {"object": "list", "data": [_model_card(serving.model)]}


@routes.get("/v1/models/{name:path}")
async def retrieve_model(name: str, serving: Service) -> dict[str, Any]:
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


@routes.api_route(
    "/{path:path}", methods=["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"], include_in_schema=False
)
async def unknown(path: str, request: Request) -> None:
    """Everything else: the envelope, not BentoML's plain text; 405 where only the method is wrong."""
    allowed = {
        method
        for route in routes.routes[:-1]
        if getattr(route, "path_regex").match(f"/{path}")  # noqa: B009
        for method in getattr(route, "methods")  # noqa: B009
    }
    if allowed:
        raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
    raise HTTPException(404)


def create_app() -> FastAPI:
    """The app without its service: set `app.state.serving` before the first request."""
    app = FastAPI(title="Parakeet speech-to-text", docs_url=None, redoc_url=None)
    app.include_router(routes)
    http_errors.install(app)
    app.add_middleware(Accounting, metrics=lambda: app.state.serving.metrics)
    return app


def answer_health(app: FastAPI) -> Callable[[ASGIApp], ASGIApp]:
    """Middleware that answers `/healthz` itself: BentoML's own route of that name says less, and comes first."""

    def wrap(inner: ASGIApp) -> ASGIApp:
        async def handle(scope: Scope, receive: Receive, send: Send) -> None:
            if scope["type"] != "http" or scope["path"] != "/healthz":
                await inner(scope, receive, send)
            else:
                await health(app)(scope, receive, send)

        return handle

    return wrap


def health(app: FastAPI) -> JSONResponse:
    """200 and what is served, once the model is loaded and warm; 503 before, and when nothing can be answered."""
    serving: Serving | None = getattr(app.state, "serving", None)
    if serving is None or not serving.is_alive:
        return JSONResponse({"status": "unavailable"}, 503)
    model = serving.model
    details = {"model": model.name, "demo": model.is_demo, "device": model.device, "precision": model.precision}
    return JSONResponse({"status": "ok", **details})
