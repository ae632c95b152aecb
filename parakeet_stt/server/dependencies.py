"""The parts of a running service that routes depend on, one by one; `components.py` sets them.

The functions are coroutines because FastAPI runs others in a thread, which would cost each request 0.2 ms a part.
"""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Annotated, Any

from fastapi import Depends, Request, Response
from fastapi.routing import APIRoute
from starlette.requests import HTTPConnection

from parakeet_stt.device.client import DeviceClient
from parakeet_stt.server.components import Components
from parakeet_stt.server.files.transcriber import FileTranscriber
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.live.sessions import LiveSessions
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import Settings


def _components(connection: HTTPConnection) -> Components:
    components: Components = connection.app.state.components
    return components


async def _settings(connection: HTTPConnection) -> Settings:
    return _components(connection).settings


async def _model(connection: HTTPConnection) -> ServedModel:
    return _components(connection).model


async def _metrics(connection: HTTPConnection) -> Metrics:
    return _components(connection).metrics


async def _transcriber(connection: HTTPConnection) -> FileTranscriber:
    return _components(connection).transcriber


async def _sessions(connection: HTTPConnection) -> LiveSessions:
    return _components(connection).sessions


async def _device(connection: HTTPConnection) -> DeviceClient:
    return _components(connection).device


async def _client_secrets(connection: HTTPConnection) -> ClientSecrets:
    return _components(connection).client_secrets


class PlainRoute(APIRoute):
    """A route whose function takes the request and parts of the service, and makes a whole Response.

    FastAPI's own handler looks for parameters, a body and a type of the answer as well: a twentieth of a front's time.
    """

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """See `APIRoute`."""
        endpoint = self.endpoint
        parts = [(one.name, one.call) for one in self.dependant.dependencies if one.name and one.call]

        async def handle(request: Request) -> Response:
            response: Response = await endpoint(request, **{name: await part(request) for name, part in parts})
            return response

        return handle


Config = Annotated[Settings, Depends(_settings)]
Model = Annotated[ServedModel, Depends(_model)]
ServiceMetrics = Annotated[Metrics, Depends(_metrics)]
Transcriber = Annotated[FileTranscriber, Depends(_transcriber)]
Sessions = Annotated[LiveSessions, Depends(_sessions)]
Device = Annotated[DeviceClient, Depends(_device)]
Secrets = Annotated[ClientSecrets, Depends(_client_secrets)]
