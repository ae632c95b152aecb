"""The routes of live speech: `/ws`, `/v1/realtime`, and the short-lived keys for sessions of the latter."""

from __future__ import annotations

from typing import Any, Literal

from fastapi import APIRouter, WebSocket
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from parakeet_stt.errors import InvalidField
from parakeet_stt.server.dependencies import Config, Model, Secrets, Sessions
from parakeet_stt.server.http.auth import REALTIME_PATH, key_of
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.http.openapi import ERRORS
from parakeet_stt.server.live.realtime import RealtimeProtocol
from parakeet_stt.server.live.realtime_session import (
    Configuration,
    configure,
    new_session_id,
    render_older_session,
    render_session,
    rules_by_hand,
)
from parakeet_stt.server.live.ws import WsProtocol, parse_hello
from parakeet_stt.server.options import CONVERSATION_MODEL_NAMES, check_json, check_realtime_model

# For how long a key is valid, in seconds: at least, unless the client asks otherwise, at most. OpenAI's own.
MIN_SECRET_SECONDS, SECRET_SECONDS, MAX_SECRET_SECONDS = 10, 600, 7200
router = APIRouter()


@router.websocket("/ws")
async def ws(websocket: WebSocket, sessions: Sessions, model: Model, settings: Config) -> None:
    """The original wrapper's socket, and what clients may ask for beyond it."""
    onset = settings.live_threshold
    hello = parse_hello(dict(websocket.query_params), model)
    await sessions.run(
        websocket,
        hello.to_options(onset, model.languages),
        lambda stream: WsProtocol(stream, hello, onset=onset, model=model),
    )


@router.websocket(REALTIME_PATH)
async def realtime(websocket: WebSocket, sessions: Sessions, model: Model, settings: Config, secrets: Secrets) -> None:
    """OpenAI's realtime transcription."""
    query = websocket.query_params
    if query.get("intent", "transcription") != "transcription":
        raise InvalidField("intent: only transcription is served", param="intent")
    configuration = Configuration()
    if (named := query.get("model")) is not None and named not in CONVERSATION_MODEL_NAMES:
        check_realtime_model(named, model)
        configuration = configure(configuration, {"audio": {"input": {"transcription": {"model": named}}}}, model)
    if (session := secrets.session_of(key_of(websocket.scope))) is not None:
        configuration = configure(configuration, session, model)
    is_older = "realtime=v1" in websocket.headers.get("openai-beta", "")
    by_hand = rules_by_hand(settings.vad_threshold, settings.max_utterance_seconds)
    await sessions.run(
        websocket,
        configuration.to_options(by_hand, model.languages),
        lambda stream: RealtimeProtocol(stream, configuration, model=model, by_hand=by_hand, is_older=is_older),
    )


@router.websocket("/{path:path}")
async def unknown(websocket: WebSocket) -> None:
    """Every other socket."""
    raise HTTPException(404)


class ExpiresAfter(BaseModel):
    """How long sessions may be opened with a key."""

    anchor: Literal["created_at"] = "created_at"
    seconds: int = Field(default=SECRET_SECONDS, ge=MIN_SECRET_SECONDS, le=MAX_SECRET_SECONDS)


class SecretRequest(BaseModel):
    """What a key is for. session: as in `session.update`."""

    expires_after: ExpiresAfter = ExpiresAfter()
    session: dict[str, Any] = {}


@router.post(f"{REALTIME_PATH}/client_secrets", responses=ERRORS)
async def create_client_secret(asked: SecretRequest, model: Model, secrets: Secrets) -> dict[str, Any]:
    """A short-lived key, for a browser, say, that opens realtime sessions and nothing else."""
    check_json(asked.session, param="session")
    configuration = configure(Configuration(), asked.session, model)
    value, expires_at = _create_key(secrets, configuration, asked.expires_after.seconds)
    return {"value": value, "expires_at": expires_at, "session": render_session(configuration, new_session_id(), 0)}


@router.post(f"{REALTIME_PATH}/transcription_sessions", responses=ERRORS)
async def create_transcription_session(asked: dict[str, Any], model: Model, secrets: Secrets) -> dict[str, Any]:
    """The same in its older form: a session as `transcription_session.update` has it, with its key inside."""
    check_json(asked, param="session")
    configuration = configure(Configuration(), {**asked, "type": "transcription"}, model)
    value, expires_at = _create_key(secrets, configuration, SECRET_SECONDS)
    session = render_older_session(configuration, new_session_id(), 0)
    return {**session, "client_secret": {"value": value, "expires_at": expires_at}}


def _create_key(secrets: ClientSecrets, configuration: Configuration, seconds: int) -> tuple[str, int]:
    return secrets.create(seconds, configuration.model_dump(exclude_unset=True))
