"""The routes of the page: `/`, and its files below `/page/`."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from parakeet_stt.server.page import assets

router = APIRouter(include_in_schema=False)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """The page."""
    return _respond(request, assets.INDEX)


@router.api_route("/page/{name}", methods=["GET", "HEAD"])
async def page_file(name: str, request: Request) -> Response:
    """A file of the page."""
    return _respond(request, name)


def _respond(request: Request, name: str) -> Response:
    asset = assets.load().get(name)
    if asset is None:
        raise HTTPException(404)
    if asset.is_known(request.headers.get("if-none-match", "")):
        return Response(status_code=304, headers=asset.headers)
    return Response(asset.content, media_type=asset.media_type, headers=asset.headers)
