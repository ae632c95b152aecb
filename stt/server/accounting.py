"""Knows what is done for every request: an id, a count, a line in the log. Does not know what any request is for."""

from __future__ import annotations

import logging
import time
import uuid
from collections.abc import Callable

from starlette.datastructures import MutableHeaders
from starlette.requests import Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from stt.server import http_errors, logs
from stt.server.metrics import Metrics

logger = logging.getLogger(__name__)
UNANSWERED = 499  # the status in log and metrics of a request whose caller left, as nginx has it


class Accounting:
    """Middleware around all routes; also what answers when one of them fails unexpectedly.

    metrics: where to count, asked for at every request.
    """

    def __init__(self, app: ASGIApp, *, metrics: Callable[[], Metrics]) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request; what is not HTTP passes untouched."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        began, status, request_id = time.perf_counter(), UNANSWERED, f"req_{uuid.uuid4().hex}"
        logs.request_id.set(request_id)

        async def send_with_id(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                MutableHeaders(scope=message)["x-request-id"] = request_id
            await send(message)

        try:
            await self._app(scope, receive, send_with_id)
        except Exception as exc:
            if status != UNANSWERED:
                raise  # too late for an answer: the server drops the connection
            await http_errors.unexpected(Request(scope), exc)(scope, receive, send_with_id)
        finally:
            seconds = time.perf_counter() - began
            route = getattr(scope.get("route"), "path", "")
            self._metrics().requests.labels(route, scope["method"], status).inc()
            self._metrics().request_seconds.labels(route).observe(seconds)
            logger.info("%s %s %d %.0f ms", scope["method"], scope["path"], status, 1000 * seconds)
