"""The FastAPI app: all routers, the answer to unknown paths, and the drain at shutdown."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

from fastapi import APIRouter, FastAPI, Request
from starlette.exceptions import HTTPException

from parakeet_stt.server import info
from parakeet_stt.server.components import Components
from parakeet_stt.server.files import routes as file_routes
from parakeet_stt.server.http import errors, openapi
from parakeet_stt.server.http.drain import drain_on_signal
from parakeet_stt.server.live import routes as live_routes
from parakeet_stt.server.page import routes as page_routes

ROUTERS = (live_routes.router, file_routes.router, info.router)
METHODS = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"]


def _fallback(routers: Sequence[APIRouter]) -> APIRouter:
    """Every other path: the envelope, where BentoML would answer in plain text; 405 if only the method is wrong."""
    fallback = APIRouter()

    @fallback.api_route("/{path:path}", methods=METHODS, include_in_schema=False)
    async def unknown(path: str, request: Request) -> None:
        allowed = {
            method
            for router in routers
            for route in router.routes
            if getattr(route, "path_regex").match(f"/{path}")  # noqa: B009
            for method in getattr(route, "methods", ())
        }
        if allowed:
            raise HTTPException(405, headers={"allow": ", ".join(sorted(allowed))})
        raise HTTPException(404)

    return fallback


@asynccontextmanager
async def _lifespan(app: FastAPI) -> AsyncIterator[None]:
    async def finish() -> None:
        components: Components = app.state.components
        await components.drain.finish(components.settings.drain_seconds)

    async with app.state.components.running(), drain_on_signal(finish):
        yield


def create_app(*, has_page: bool) -> FastAPI:
    """The app without its parts: set `app.state.components` before the first request. has_page: whether `/` answers."""
    app = FastAPI(
        title=openapi.TITLE, description=openapi.DESCRIPTION, docs_url=None, redoc_url=None, lifespan=_lifespan
    )
    routers = (*ROUTERS, page_routes.router) if has_page else ROUTERS
    for router in (*routers, _fallback(routers)):
        app.include_router(router)
    errors.install(app)
    return app
