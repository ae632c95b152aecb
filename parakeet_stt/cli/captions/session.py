"""A session of `/v1/realtime`: sends sound, receives events, and ends once the last words have come."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from parakeet_stt.cli.captions.sound import Sound
from parakeet_stt.cli.captions.words import Captions

RETRY_SECONDS = 1.0  # between two tries to reach a server that is away
FINAL_SECONDS = 30.0  # for the last words
NOT_ENOUGH = "input_audio_buffer_commit_empty"  # the answer to a commit after which nothing is open


class NoSession(Exception):
    """The server is away, refuses the session, or has ended it; the message is one line."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a session is asked for: `session.audio.input.transcription`, and how long the server may be away."""

    transcription: Mapping[str, Any] = field(default_factory=dict)
    give_up_seconds: float = 30.0


async def caption(
    url: str, key: str, sound: Sound, wishes: Wishes, captions: Captions, on_change: Callable[[], None]
) -> None:
    """Send all sound, and note the events in `captions`; `on_change` is called after each.

    url: the base of the API. Raises NoSession, after which `captions` has what was final; at the beginning only once
    the server was away for `give_up_seconds`.
    """
    connection = await _connect(f"{url.replace('http', 'ws', 1)}/realtime?intent=transcription", key, wishes)
    try:
        async with connection:
            audio = {"format": {"type": "audio/pcm", "rate": sound.rate}, "transcription": dict(wishes.transcription)}
            update = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio}}}
            await _send(connection, update)
            await _expect_update(connection)
            sound.start()
            sending = asyncio.create_task(_send_sound(connection, sound, update))
            receiving = asyncio.create_task(_receive(connection, captions, on_change))
            try:
                await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
                if not receiving.done():
                    await sending
                    await asyncio.wait_for(receiving, FINAL_SECONDS)
                await receiving
            finally:
                for task in (sending, receiving):
                    task.cancel()
                await asyncio.gather(sending, receiving, return_exceptions=True)
    except ConnectionClosed as exc:
        raise _ended(connection) from exc
    except TimeoutError as exc:
        raise NoSession(f"the last words did not come within {FINAL_SECONDS:.0f} s") from exc


async def _connect(address: str, key: str, wishes: Wishes) -> ClientConnection:
    headers = {"authorization": f"Bearer {key}"} if key else {}
    deadline = time.monotonic() + wishes.give_up_seconds
    while True:
        try:
            return await connect(address, additional_headers=headers, compression=None, max_size=None)
        except InvalidStatus as exc:
            status, seconds = exc.response.status_code, exc.response.headers.get("retry-after", "")
            message = f"{address}: status {status}: {_message_of(exc.response.body)}"
            wait = float(seconds) if seconds.isdecimal() else RETRY_SECONDS
            if status not in (429, 502, 503, 504):
                raise NoSession(message) from exc
            error: Exception = exc
        except (OSError, InvalidHandshake) as exc:
            message, wait, error = f"{address} can't be reached ({exc})", RETRY_SECONDS, exc
        if time.monotonic() + wait > deadline:
            raise NoSession(message) from error
        await asyncio.sleep(wait * random.uniform(1, 1.1))


def _message_of(body: bytes | None) -> str:
    """The message of an error's body."""
    try:
        return str(json.loads(body or b"")["error"]["message"])
    except (ValueError, KeyError, TypeError):
        return (body or b"").decode(errors="replace").strip()[:200]


async def _expect_update(connection: ClientConnection) -> None:
    async for message in connection:
        event = json.loads(message)
        if event["type"] == "session.updated":
            return
        if event["type"] == "error":
            raise NoSession(event["error"]["message"])


async def _send(connection: ClientConnection, event: Mapping[str, Any]) -> None:
    await connection.send(json.dumps(event))


async def _send_sound(connection: ClientConnection, sound: Sound, update: Mapping[str, Any]) -> None:
    while (piece := await sound.read()) is not None:
        audio = base64.b64encode(piece).decode()
        await _send(connection, {"type": "input_audio_buffer.append", "audio": audio})
    await _send(connection, {"type": "input_audio_buffer.commit"})
    # Changes nothing. Its answer comes after all that was spoken has begun: then no utterance is still to begin.
    await _send(connection, update)


async def _receive(connection: ClientConnection, captions: Captions, on_change: Callable[[], None]) -> None:
    """Note events until the last words have come."""
    is_all_known = False
    async for message in connection:
        event = json.loads(message)
        if event["type"] == "session.updated":
            is_all_known = True
        elif event["type"] == "error" and event["error"].get("code") != NOT_ENOUGH:
            raise NoSession(event["error"]["message"])
        captions.receive(event)
        on_change()
        if is_all_known and captions.is_complete:
            return
    raise _ended(connection)


def _ended(connection: ClientConnection) -> NoSession:
    reason = connection.close_reason or (f"code {connection.close_code}" if connection.close_code else "it is gone")
    return NoSession(f"the server has ended the session: {reason}")
