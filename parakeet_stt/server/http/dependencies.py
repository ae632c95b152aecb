"""Knows where a request finds the service that answers it. Does not know either."""

from __future__ import annotations

from typing import Annotated

from fastapi import Depends
from starlette.requests import HTTPConnection

from parakeet_stt.server.files.serving import Serving


def serving_of(connection: HTTPConnection) -> Serving:
    """The service that answers this request or socket; set by whoever composed the app."""
    serving: Serving = connection.app.state.serving
    return serving


Service = Annotated[Serving, Depends(serving_of)]
