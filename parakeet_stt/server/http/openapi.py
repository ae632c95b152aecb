"""How the service as a whole is described: in /openapi.json, and on the page /docs, which needs no other server."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response

from parakeet_stt.server.http.errors import ErrorBody

TITLE = "Parakeet speech-to-text"
DESCRIPTION = "OpenAI's audio API, answered by a model of the Parakeet-TDT family on this machine."
# Swagger UI's files as BentoML carries them for its own page, so that nothing is fetched from elsewhere.
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}
_ERROR_EXAMPLE = {
    "error": {
        "message": "response_format: 'xml' is not one of json, text, srt, verbose_json, vtt",
        "type": "invalid_request_error",
        "param": "response_format",
        "code": "invalid_value",
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorBody,
        "description": "The request can't be served as it is; 429 says in `retry-after` when to come again.",
        "content": {"application/json": {"example": _ERROR_EXAMPLE}},
    },
    "5XX": {"model": ErrorBody, "description": "The server's own failure; 503 if it took too long."},
}


def page() -> HTMLResponse:
    """The routes, to read and to try."""
    first, second = (f"/docs/{name}" for name in ASSETS)
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=TITLE,
        swagger_js_url=first,
        swagger_css_url=second,
        swagger_favicon_url="data:,",
    )


def asset(name: str) -> Response:
    """One of `ASSETS`."""
    content = files("bentoml").joinpath("_internal", "server", "static_content", name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers={"cache-control": "max-age=86400"})
