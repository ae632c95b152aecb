"""Errors as HTTP: status, envelope, headers. No other module knows them."""

from __future__ import annotations

import asyncio
import errno
import http
import logging
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, HTTPConnection
from typing_extensions import TypedDict

from parakeet_stt.errors import (
    HostRefused,
    NotAuthorized,
    OriginRefused,
    Overloaded,
    RequestError,
    Unavailable,
    UnknownModel,
    UploadStalled,
    UploadTooLarge,
)

logger = logging.getLogger(__name__)
NO_ROOM = {errno.ENOSPC, errno.EDQUOT}  # of a disk
NO_DESCRIPTORS = {errno.EMFILE, errno.ENFILE}
RETRY_SECONDS = 5

STATUS_OF: dict[type[RequestError], int] = {
    UploadTooLarge: 413,
    UploadStalled: 408,
    UnknownModel: 404,
    NotAuthorized: 401,
    OriginRefused: 403,
    HostRefused: 403,
}


class Error(TypedDict):
    """What went wrong. param: the field at fault, if there is one. code: the reason, for programs."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorBody(TypedDict):
    """OpenAI's envelope around every error."""

    error: Error


def envelope(status: int, message: str, *, param: str | None = None, code: str | None = None) -> JSONResponse:
    """OpenAI's error body, all four keys present."""
    kind = "requests" if status == 429 else "invalid_request_error" if status < 500 else "server_error"
    phrase = http.HTTPStatus(status).phrase if status in set(http.HTTPStatus) else "Error"
    error: Error = {
        "message": message or phrase,
        "type": kind,
        "param": param,
        "code": code or phrase.lower().replace(" ", "_"),
    }
    return JSONResponse(ErrorBody(error=error), status)


def to_response(request: HTTPConnection, exc: BaseException) -> JSONResponse:
    """The response for an error of a request, or of a socket before it was accepted."""
    method = request.scope.get("method", "WEBSOCKET")
    if isinstance(exc, RequestError):
        status = next((STATUS_OF[kind] for kind in type(exc).__mro__ if kind in STATUS_OF), 400)
        return envelope(status, exc.message, param=exc.param, code=exc.code)
    if isinstance(exc, RequestValidationError):
        problem: dict[str, Any] = exc.errors()[0]
        field = ".".join(str(part) for part in problem["loc"] if part != "body")
        return envelope(400, f"{field}: {problem['msg']}", param=field or None, code="invalid_value")
    if isinstance(exc, HTTPException):
        phrase = http.HTTPStatus(exc.status_code).phrase
        detail = exc.detail if exc.detail != phrase else f"{phrase}: {method} {request.url.path}"
        response = envelope(exc.status_code, detail)
        response.headers.update(exc.headers or {})
        return response
    if isinstance(exc, Overloaded):
        is_away = isinstance(exc, Unavailable)
        response = envelope(503 if is_away else 429, exc.message, code=None if is_away else "rate_limit_exceeded")
        response.headers["retry-after"] = str(exc.retry_after)
        return response
    if isinstance(exc, TimeoutError):
        response = envelope(503, "The transcription took longer than this server allows.", code="timeout")
        response.headers["x-should-retry"] = "false"  # the official client would send the same work twice more
        return response
    if isinstance(exc, ClientDisconnect):  # no client reads this; the log shows 499, as nginx does
        return envelope(499, "The client closed the connection.", code="client_closed_request")
    if isinstance(exc, OSError) and exc.errno in NO_ROOM | NO_DESCRIPTORS:
        logger.error("%s %s: %s", method, request.url.path, exc)
        if exc.errno in NO_ROOM:
            return envelope(507, "The server has no room for this upload now.")
        response = envelope(503, "The server can't take on more now. Please retry.")
        response.headers["retry-after"] = str(RETRY_SECONDS)
        return response
    # Everything else is our fault. The reason goes to the log only: it may hold internals.
    logger.error("%s %s failed", method, request.url.path, exc_info=exc)
    return envelope(500, "The server had an error while processing your request.", code="internal_error")


def install(app: FastAPI) -> None:
    """Answer every error of `app` in the envelope."""

    async def answer(request: Request, exc: Exception) -> JSONResponse:
        return to_response(request, exc)

    expected = (
        RequestError,
        RequestValidationError,
        HTTPException,
        Overloaded,
        ClientDisconnect,
        asyncio.TimeoutError,
        OSError,
    )
    for kind in expected:
        app.add_exception_handler(kind, answer)
