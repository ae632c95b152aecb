"""Knows the routes of live speech: `/ws`, `/v1/realtime`, and the keys that are made for sessions of the latter.

Does not know what a message means (live_protocol.py, realtime.py), nor how a socket is kept (sockets.py).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Literal

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from parakeet_stt.errors import InvalidField, UnknownModel
from parakeet_stt.server.files import openapi
from parakeet_stt.server.files.serving import Serving
from parakeet_stt.server.http.auth import REALTIME, SUBPROTOCOL, shown_key
from parakeet_stt.server.http.dependencies import Service, serving_of
from parakeet_stt.server.live.connection import BROKEN, IDLE, SLOW_READER, LiveProtocol, converse, log_session
from parakeet_stt.server.live.realtime import (
    CONVERSATION_NAMES,
    REALTIME_NAMES,
    Configuration,
    RealtimeProtocol,
    configured,
    described,
    from_older,
    new_session_id,
)
from parakeet_stt.server.live.stream import Live, LiveOptions
from parakeet_stt.server.live.ws import WsProtocol, hello_of

SECRET_SECONDS = (10, 600, 7200)  # a key is valid for: at least, unless asked otherwise, at most; OpenAI's own
DROPPED = {SLOW_READER: "slow_reader", IDLE: "idle", BROKEN: "failed"}
routes = APIRouter()


@routes.websocket("/ws")
async def ws(websocket: WebSocket) -> None:
    """The original wrapper's socket, and what clients may ask for beyond it."""
    serving = serving_of(websocket)
    languages, onset = serving.model.languages, serving.settings.live_threshold
    hello = hello_of(dict(websocket.query_params), languages)
    await _serve(
        websocket,
        hello.options(onset),
        lambda live: WsProtocol(live, hello, onset=onset, languages=languages),
    )


@routes.websocket(REALTIME)
async def realtime(websocket: WebSocket) -> None:
    """OpenAI's realtime transcription."""
    serving = serving_of(websocket)
    asked = websocket.query_params
    if asked.get("intent", "transcription") != "transcription":
        raise InvalidField("intent: only transcription is served", param="intent")
    model = asked.get("model", serving.model.name)
    if model != serving.model.name and model not in REALTIME_NAMES | CONVERSATION_NAMES:
        raise UnknownModel(f"model: {model!r} is not served here; {serving.model.name!r} is", param="model")
    configuration = Configuration()
    if (made_with := serving.client_secrets.session_of(shown_key(websocket.scope))) is not None:
        configuration = _configured(serving, made_with)
    is_older = "realtime=v1" in websocket.headers.get("openai-beta", "")
    longest_ms = round(1000 * serving.settings.max_utterance_seconds)
    await _serve(
        websocket,
        configuration.options(longest_ms),
        lambda live: RealtimeProtocol(
            live,
            configuration,
            served=serving.model.name,
            languages=serving.model.languages,
            longest_ms=longest_ms,
            is_older=is_older,
        ),
    )


@routes.websocket("/{path:path}")
async def unknown(websocket: WebSocket) -> None:
    """Every other socket."""
    raise HTTPException(404)


class ExpiresAfter(BaseModel):
    """For how long a session may be opened with the key."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=SECRET_SECONDS[1], ge=SECRET_SECONDS[0], le=SECRET_SECONDS[2])


class SecretRequest(BaseModel):
    """What a key is made for. session: as in `session.update`."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = {}


@routes.post(f"{REALTIME}/client_secrets", responses=openapi.ERRORS)
async def create_client_secret(asked: SecretRequest, serving: Service) -> dict[str, Any]:
    """A short-lived key, for a browser, say, that opens realtime sessions and nothing else."""
    configuration = _configured(serving, asked.session)
    value, expires_at = _key(serving, configuration, asked.expires_after.seconds)
    return {"value": value, "expires_at": expires_at, "session": described(configuration, new_session_id(), 0)}


@routes.post(f"{REALTIME}/transcription_sessions", responses=openapi.ERRORS)
async def create_transcription_session(asked: dict[str, Any], serving: Service) -> dict[str, Any]:
    """The same in its older form: a session as `transcription_session.update` has it, with its key inside."""
    value, expires_at = _key(serving, _configured(serving, from_older(asked)), SECRET_SECONDS[1])
    return {
        **asked,
        "id": new_session_id(),
        "object": "realtime.transcription_session",
        "client_secret": {"value": value, "expires_at": expires_at},
    }


def _configured(serving: Serving, session: Any) -> Configuration:
    return configured(Configuration(), session, served=serving.model.name, languages=serving.model.languages)


def _key(serving: Serving, configuration: Configuration, seconds: int) -> tuple[str, int]:
    return serving.client_secrets.made(seconds, configuration.model_dump(exclude_unset=True))


async def _serve(websocket: WebSocket, options: LiveOptions, protocol: Callable[[Live], LiveProtocol]) -> None:
    """Carry one session from its admission to its end. Raises Overloaded before the socket is accepted."""
    serving = serving_of(websocket)
    began = time.monotonic()
    with serving.occupancy.session():
        live = serving.live(options)
        try:
            spoken = [one for one in websocket.scope.get("subprotocols", ()) if not one.startswith(SUBPROTOCOL)]
            await websocket.accept(subprotocol=spoken[0] if spoken else None)
            ending = await converse(
                websocket,
                protocol(live),
                serving.occupancy,
                idle_seconds=serving.settings.session_idle_seconds,
                patience=serving.settings.drain_seconds,
            )
        finally:
            await live.close()
    if ending in DROPPED:
        serving.metrics.sessions_dropped.labels(DROPPED[ending]).inc()
    log_session(websocket.url.path, ending, time.monotonic() - began, live.heard_seconds)
