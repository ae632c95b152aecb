"""Has our own app answer the route of BentoML's own client; service.py has the signature that the client reads."""

from __future__ import annotations

from starlette.types import ASGIApp, Receive, Scope, Send

NATIVE_PATH = "/bentoml/transcribe"
NATIVE_PREFIX = "/bentoml"  # BentoML's pattern also matches a line feed after the path


class NativeMiddleware:
    """Middleware that sends requests for BentoML's own route to `own`, our app.

    BentoML's reading of a form downloads the address that a text in place of a file names, without a limit and past a
    check that fails for several requests at once; and it keeps text and files without our limits.
    """

    def __init__(self, app: ASGIApp, *, own: ASGIApp) -> None:
        self._app = app
        self._own = own

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Handle one request or socket."""
        is_native = scope["type"] == "http" and scope["path"].startswith(NATIVE_PREFIX)
        await (self._own if is_native else self._app)(scope, receive, send)
