"""What every request passes before any route, ours or BentoML's: an id, a key, a limit of its body, a count.

Errors that are not in OpenAI's envelope are put into it here.
"""

from __future__ import annotations

import json
import logging
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from fastapi.responses import JSONResponse
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import ClientDisconnect, HTTPConnection, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from parakeet_stt.errors import ShuttingDown
from parakeet_stt.server.http import auth, errors
from parakeet_stt.server.http.bodies import Body
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.http.drain import Drain
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.monitoring import logs
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import Settings

logger = logging.getLogger(__name__)
UNANSWERED = 499  # the status in log and metrics of a request whose client disconnected, as nginx has it


@dataclass(frozen=True, slots=True)
class RequestContext:
    """What the middleware uses of a running service. is_alive: whether requests will be answered."""

    settings: Settings
    model: ServedModel
    metrics: Metrics
    drain: Drain
    client_secrets: ClientSecrets
    is_alive: Callable[[], bool]


class RequestMiddleware:
    """Middleware around everything that the process answers over HTTP, and around its sockets.

    context: of the running service; None while it is not loaded.
    """

    def __init__(self, app: ASGIApp, *, context: Callable[[], RequestContext | None]) -> None:
        self._app = app
        self._context = context
        self._outermost: ASGIApp | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or socket; anything else passes untouched."""
        context = self._context()
        if scope["type"] not in ("http", "websocket") or context is None:
            await (health(None) if _is_health(scope) else self._app)(scope, receive, send)
            return
        if scope["type"] == "websocket":
            await self._handle_socket(context, scope, receive, send)
            return
        if self._outermost is None:
            origins = context.settings.cors_origins
            self._outermost = (
                CORSMiddleware(self._handle_request, allow_origins=origins, allow_methods=["*"], allow_headers=["*"],
                               expose_headers=["x-request-id", "retry-after", "x-audio-truncated"])
                if origins else self._handle_request
            )  # fmt: skip
        await self._outermost(scope, receive, send)

    async def _handle_request(self, scope: Scope, receive: Receive, send: Send) -> None:
        context = self._context()
        assert context is not None
        began, request_id = time.perf_counter(), f"req_{uuid.uuid4().hex}"
        logs.request_id.set(request_id)
        answer = _Answer(Request(scope), send, request_id, context.drain)
        try:
            if _is_health(scope):
                await health(context)(scope, receive, answer.send)
                return
            _check(scope, context)
            answer.body = Body(scope, receive, context.settings, context.drain)
            await _stop_bentoml_timer(send)
            async with context.drain.request():
                await self._app(scope, answer.body.receive, answer.send)
        except Exception as exc:
            if answer.is_unread or (answer.status != UNANSWERED and isinstance(exc, ShuttingDown)):
                return  # the answer is not complete: the server drops the connection
            if answer.status != UNANSWERED:
                raise  # the answer has begun: the server drops the connection
            await errors.to_response(Request(scope), exc)(scope, receive, answer.send)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "")
            context.metrics.requests.labels(route, scope["method"], answer.status).inc()
            context.metrics.request_seconds.labels(route).observe(seconds)
            logger.info("%s %s %d %.0f ms", scope["method"], scope["path"], answer.status, 1000 * seconds)

    async def _handle_socket(self, context: RequestContext, scope: Scope, receive: Receive, send: Send) -> None:
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
                _check(scope, context)
                auth.check_origin(scope, context.settings)
            except Exception as exc:
                await errors.to_response(HTTPConnection(scope), exc)(scope, receive, send_with_id)
                return
            await self._app(scope, receive, send_with_id)
        finally:
            route = getattr(scope.get("route"), "path", "")
            context.metrics.requests.labels(route, "WEBSOCKET", status).inc()
            if status != 101:
                logger.info("WEBSOCKET %s %d", scope["path"], status)


class _Answer:
    """Sends one answer: with the request's id, and errors in the envelope.

    body: of the request, once it is read. is_unread: whether the service has ended while the client did not read.
    """

    def __init__(self, request: Request, send: Send, request_id: str, drain: Drain) -> None:
        self._request = request
        self.status = UNANSWERED
        self.body: Body | None = None
        self.is_unread = False
        self._raw_send = send
        self._drain = drain
        self._request_id = request_id
        self._error_body: list[bytes] | None = None  # parts of the body of an error, until it is complete
        self._start: Message = {}

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            MutableHeaders(scope=message)["x-request-id"] = self._request_id
            self._start = message
            self.status = message["status"]
            if self.status >= 400:
                self._error_body = []
                return
        elif message["type"] == "http.response.body" and self._error_body is not None:
            self._error_body.append(message.get("body", b""))
            if not message.get("more_body", False):
                await self._send_error(b"".join(self._error_body))
            return
        await self._send(message)

    async def _send(self, message: Message) -> None:
        try:
            async with self._drain.wait_for_client(None):
                await self._raw_send(message)
        except TimeoutError:
            self.is_unread = True
            raise ClientDisconnect from None

    async def _send_error(self, body: bytes) -> None:
        """Send the body if it is an envelope already, else an envelope with its message."""
        reason = self.body and self.body.error  # which FastAPI would answer as a body that can't be parsed
        if reason or not _is_envelope(body):
            response = (
                errors.to_response(self._request, reason) if reason else errors.envelope(self.status, _message_of(body))
            )
            self.status = response.status_code
            kept = {name: value for name, value in Headers(scope=self._start).items()
                    if name not in ("content-length", "content-type")}  # fmt: skip
            response.headers.update(kept)
            self._start = {**self._start, "status": response.status_code, "headers": response.raw_headers}
            body = bytes(response.body)
        await self._send(self._start)
        await self._send({"type": "http.response.body", "body": body})


def _check(scope: Scope, context: RequestContext) -> None:
    """Raise HostRefused, NotAuthorized, or ShuttingDown for all but the health checks."""
    auth.check_host(scope, context.settings)
    auth.check_key(scope, context.settings, context.client_secrets)
    if scope["path"] not in auth.OPEN_PATHS:
        context.drain.check_open()


async def _stop_bentoml_timer(send: Send) -> None:
    """Stop BentoML's timeout for this request: hours of audio may take longer, and time is limited here.

    The timeout stops with the first message of an answer, before the message reaches uvicorn, which refuses this one. A
    long `traffic.timeout` would not do: BentoML keeps 4.7 KB of each request for as long.
    """
    with suppress(RuntimeError):
        await send({"type": "stt.no_message"})


def health(context: RequestContext | None) -> JSONResponse:
    """200 and the served model once it is loaded and warm; 503 before, and when no request can be answered."""
    if context is None or not context.is_alive():
        return JSONResponse({"status": "unavailable"}, 503)
    model = context.model
    details = {
        "model": model.name,
        "demo": model.is_demo,
        "device": model.device,
        "precision": model.precision,
        "precision_reason": model.precision_reason,
    }
    return JSONResponse({"status": "ok", **details, "digests": model.digests.named()})


def _is_health(scope: Scope) -> bool:
    """Whether this is for our own /healthz: BentoML's route of that name says less, and would come first."""
    return bool(scope["type"] == "http" and scope["path"] == "/healthz")


def _parse(body: bytes) -> Any:
    try:
        return json.loads(body)
    except ValueError:
        return None


def _is_envelope(body: bytes) -> bool:
    parsed = _parse(body)
    error = parsed.get("error") if isinstance(parsed, dict) else None
    return isinstance(error, dict) and set(error) == set(errors.Error.__annotations__)


def _message_of(body: bytes) -> str:
    """The message of an error that is not in the envelope."""
    parsed = _parse(body)
    if isinstance(parsed, dict) and isinstance(parsed.get("error"), str):
        return str(parsed["error"])
    return body.decode("utf-8", "replace").strip()
