"""The routes about the service itself: models, configuration, metrics, documentation."""

from __future__ import annotations

from typing import Literal

from fastapi import APIRouter
from fastapi.responses import PlainTextResponse, Response
from starlette.exceptions import HTTPException
from typing_extensions import TypedDict

from parakeet_stt.server.dependencies import Model as Served
from parakeet_stt.server.dependencies import ServiceMetrics
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
