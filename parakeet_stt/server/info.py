"""The routes about the service itself: models, configuration, metrics, documentation."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from parakeet_stt.server.dependencies import Config, Device, ServiceMetrics
from parakeet_stt.server.dependencies import Model as Served
from parakeet_stt.server.http import openapi
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.options import check_model

router = APIRouter(responses=openapi.ERRORS)


class Model(TypedDict):
    """A model, as OpenAI describes one. created: unix time."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    """All models that are served: one."""

    object: Literal["list"]
    data: list[Model]


class StatusModel(TypedDict):
    """What is served. is_demo: whether it is the bundled tiny one. languages: ISO 639-1.

    tells_speakers: whether a diarizer is served beside it.
    """

    name: str
    is_demo: bool
    languages: list[str]
    device: str
    precision: str
    tells_speakers: bool


class Limits(TypedDict):
    """What is refused above them: bytes of an upload, seconds of a recording, live sessions at a time."""

    upload_bytes: int
    audio_seconds: float
    sessions: int


class Status(TypedDict):
    """The service now. speed: seconds of audio decoded in a second. waiting_seconds: of audio without an answer."""

    model: StatusModel
    speed: float
    waiting_seconds: float
    sessions: int
    limits: Limits


def _card(model: ServedModel, name: str) -> Model:
    return {"id": name, "object": "model", "created": model.created, "owned_by": model.owned_by}


@router.get("/v1/models")
async def list_models(model: Served) -> Models:
    """The one model that is served."""
    return {"object": "list", "data": [_card(model, model.name)]}


@router.get("/v1/models/{name:path}")
async def retrieve_model(name: str, model: Served) -> Model:
    """The served model, by any of the names that requests may say."""
    check_model(name, model)
    return _card(model, name)


@router.get("/status")
async def status(model: Served, device: Device, settings: Config) -> Status:
    """What is served, how fast it is now, and what it is busy with; of all processes together."""
    return {
        "model": {
            "name": model.name,
            "is_demo": model.is_demo,
            "languages": list(model.languages),
            "device": model.device,
            "precision": model.precision,
            "tells_speakers": model.tells_speakers,
        },
        "speed": round(device.speed(), 1),
        "waiting_seconds": round(device.waiting_seconds(), 1),
        "sessions": device.open_sessions(),
        "limits": {
            "upload_bytes": settings.max_upload_bytes,
            "audio_seconds": settings.max_audio_seconds,
            "sessions": device.max_sessions(),
        },
    }


@router.get("/debug/cfg", response_class=PlainTextResponse)
async def debug_config(model: Served) -> str:
    """The active NeMo configuration as YAML."""
    return model.config


@router.get("/metrics", include_in_schema=False)
async def metrics(counted: ServiceMetrics) -> Response:
    """All metrics, for Prometheus."""
    body, media_type = counted.exposition()
    return Response(body, media_type=media_type)


@router.get("/docs", include_in_schema=False)
async def docs() -> Response:
    """The routes, to read and to try; this service serves the page's parts too."""
    return openapi.page()


@router.get("/docs/{name}", include_in_schema=False)
async def docs_asset(name: str) -> Response:
    """A part of that page."""
    if name not in openapi.ASSETS:
        raise HTTPException(404)
    return openapi.asset(name)
