"""Knows what every request passes before any route, its own or BentoML's: an id, a key, a bound on its body, a count.

Does not know what the routes do. Whatever answers an error in other words than the envelope is put into it here.
"""

from __future__ import annotations

import asyncio
import dataclasses
import json
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from contextvars import ContextVar
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parakeet_stt.errors import UploadStalled, UploadTooLarge
from parakeet_stt.server import logs
from parakeet_stt.server.files.serving import Serving
from parakeet_stt.server.http import auth as access
from parakeet_stt.server.http import errors as http_errors
from parakeet_stt.server.settings import Settings

logger = logging.getLogger(__name__)
UNANSWERED = 499  # the status in log and metrics of a request whose caller left, as nginx has it
_current: ContextVar[_Answer] = ContextVar("answer")


class Gate:
    """Middleware around everything that the process answers over HTTP, and around its sockets.

    serving: the running service; None as long as it is not loaded.
    """

    def __init__(self, app: ASGIApp, *, serving: Callable[[], Serving | None]) -> None:
        self._app = app
        self._serving = serving
        self._entrance: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or socket; what is neither passes untouched."""
        serving = self._serving()
        if scope["type"] not in ("http", "websocket") or serving is None:
            await (health(None) if _is_health(scope) else self._app)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._let_in(serving, scope, receive, send)
            return
        if self._entrance is None:
            origins = serving.settings.cors_origins
            self._entrance = (
                CORSMiddleware(self._handle, allow_origins=origins, allow_methods=["*"], allow_headers=["*"],
                               expose_headers=["x-request-id", "retry-after", "x-audio-truncated"])
                if origins else self._handle
            )  # fmt: skip
        await self._entrance(scope, receive, send)

    async def _handle(self, scope: Scope, receive: Receive, send: Send) -> None:
        serving = self._serving()
        assert serving is not None
        began, request_id = time.perf_counter(), f"req_{uuid.uuid4().hex}"
        logs.request_id.set(request_id)
        answer = _Answer(Request(scope), send, request_id)
        _current.set(answer)
        try:
            if _is_health(scope):
                await health(serving)(scope, receive, answer.send)
                return
            _check(scope, serving)
            if int(Headers(scope=scope).get("content-length") or 0) > serving.settings.max_upload_bytes:
                raise too_large(serving.settings.max_upload_bytes)
            await _without_bentomls_timer(send)
            bounded = _bounded(receive, serving.settings, answer)
            with serving.occupancy.request():
                await self._app(scope, bounded, answer.send)
        except Exception as exc:
            if answer.status != UNANSWERED:
                raise  # too late for an answer: the server drops the connection
            await http_errors.answer_to(Request(scope), exc)(scope, receive, answer.send)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "")
            serving.metrics.requests.labels(route, scope["method"], answer.status).inc()
            serving.metrics.request_seconds.labels(route).observe(seconds)
            logger.info("%s %s %d %.0f ms", scope["method"], scope["path"], answer.status, 1000 * seconds)

    async def _let_in(self, serving: Serving, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = f"req_{uuid.uuid4().hex}"
        logs.request_id.set(request_id)
        status = UNANSWERED

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] in ("websocket.accept", "websocket.http.response.start"):
                message.setdefault("headers", [])
                MutableHeaders(scope=message)["x-request-id"] = request_id
                status = message.get("status", 101)
            await send(message)

        try:
            try:
                _check(scope, serving)
                access.check_origin(scope, serving.settings)
            except Exception as exc:
                await http_errors.answer_to(HTTPConnection(scope), exc)(scope, receive, send_with_id)
                return
            await self._app(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "")
            serving.metrics.requests.labels(route, "WEBSOCKET", status).inc()
            if status != 101:
                logger.info("WEBSOCKET %s %d", scope["path"], status)


def remember(exc: Exception) -> None:
    """Have the present request answered with this error, also if BentoML makes a plain 500 of it."""
    _current.get().refusal = exc


class _Answer:
    """What is sent to one caller: with the request's id, and errors in the envelope. refusal: the reason, if known."""

    def __init__(self, request: Request, send: Send, request_id: str) -> None:
        self._request = request
        self.status = UNANSWERED
        self.refusal: Exception | None = None
        self._send = send
        self._request_id = request_id
        self._error: list[bytes] | None = None  # the body of an answer that is an error, until it is whole
        self._start: Message = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
            self._start = message
            self.status = message["status"]
            if self.status >= 400:
                self._error = []
                return
        elif message["type"] == "http.response.body" and self._error is not None:
            self._error.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._send_error(b"".join(self._error))
            return
        await self._send(message)

    async def _send_error(self, body: bytes) -> None:
        """The body if it is an envelope already, else one around it."""
        if not _is_envelope(body):
            response = (
                http_errors.answer_to(self._request, self.refusal)
                if self.refusal
                else http_errors.envelope(self.status, _said(body))
            )
            self.status = response.status_code
            kept = {name: value for name, value in Headers(scope=self._start).items()
                    if name not in ("content-length", "content-type")}  # fmt: skip
            response.headers.update(kept)
            self._start = {**self._start, "status": response.status_code, "headers": response.raw_headers}
            body = bytes(response.body)
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})


def _check(scope: Scope, serving: Serving) -> None:
    """Raises NotAuthorized, or Ending if nothing new is taken on; whether the service is well may always be asked."""
    access.check_key(scope, serving.settings, serving.client_secrets)
    if scope["path"] not in access.OPEN_PATHS:
        serving.occupancy.check_open()


def too_large(limit: int) -> UploadTooLarge:
    """The refusal of a body over `limit` bytes."""
    return UploadTooLarge(f"The request body is larger than the limit of {limit} bytes.", param="file")


async def _without_bentomls_timer(send: Send) -> None:
    """Stop BentoML's clock for this request: hours of audio may take longer than it runs, and time is limited here.

    It stops with the first message of an answer, before the message reaches uvicorn, which refuses this one. A long
    `traffic.timeout` is no way: BentoML keeps 4.7 KB of each request for as long.
    """
    with suppress(RuntimeError):
        await send({"type": "stt.no_message"})


def _bounded(receive: Receive, settings: Settings, answer: _Answer) -> Receive:
    """`receive`, which raises UploadTooLarge once the body is too long, announced or not, and UploadStalled."""
    received, is_whole = 0, False

    async def receive_bounded() -> Message:
        nonlocal received, is_whole
        try:
            async with asyncio.timeout(None if is_whole else settings.request_timeout_seconds):
                message = await receive()
        except TimeoutError:
            answer.refusal = UploadStalled("The upload has stopped before its end.")
            raise answer.refusal from None
        received += len(message.get("body", b""))
        is_whole = not message.get("more_body", False)
        if received > settings.max_upload_bytes:
            answer.refusal = too_large(settings.max_upload_bytes)
            raise answer.refusal
        return message

    return receive_bounded


def health(serving: Serving | None) -> JSONResponse:
    """200 and what is served, once the model is loaded and warm; 503 before, and when nothing can be answered."""
    if serving is None or not serving.is_alive:
        return JSONResponse({"status": "unavailable"}, 503)
    model = serving.model
    details = {"model": model.name, "demo": model.is_demo, "device": model.device, "precision": model.precision}
    return JSONResponse({"status": "ok", **details, "digests": dataclasses.asdict(model.digests)})


def _is_health(scope: Scope) -> bool:
    """BentoML's own route of that name says less, and would come first."""
    return bool(scope["type"] == "http" and scope["path"] == "/healthz")


def _parsed(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _is_envelope(body: bytes) -> bool:
    parsed = _parsed(body)
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return isinstance(error, dict) and set(error) == set(http_errors.Error.__annotations__)


def _said(body: bytes) -> str:
    """What an error that is not in the envelope says."""
    parsed = _parsed(body)
    if isinstance(parsed, dict) and isinstance(parsed.get("error"), str):
        return str(parsed["error"])
    return body.decode("utf-8", "replace").strip()
