"""A session of `/v1/realtime`: sends sound, receives events, and ends once the last words have come.

It outlives its connection: sound without final words is kept, and sent again over another one.
"""

from __future__ import annotations

import asyncio
import base64
import json
import math
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidHandshake, InvalidStatus

from parakeet_stt.cli.captions.sound import KeptSound, Sound
from parakeet_stt.cli.captions.words import Captions

RETRY_SECONDS = 1.0  # between two tries to reach a server that is away
STEADY_SECONDS = 10.0  # a connection that lasted so long counts, though nobody spoke: the server was not away
FINAL_SECONDS = 30.0  # for the last words
NOT_ENOUGH = "input_audio_buffer_commit_empty"  # the answer to a commit after which nothing is open


class NoSession(Exception):
    """The server is away, refuses the session, or has ended it; the message is one line."""


@dataclass(frozen=True, slots=True)
class Wishes:
    """What a session is asked for: `session.audio.input.transcription`, and how long the server may be away."""

    transcription: Mapping[str, Any] = field(default_factory=dict)
    give_up_seconds: float = 30.0


class _Lost(Exception):
    """The connection has broken, or the server has ended it; the message is one line."""


async def caption(  # what to send, where, and what to do with the answer
    url: str,
    key: str,
    sound: Sound,
    wishes: Wishes,
    captions: Captions,
    on_change: Callable[[], None],
    on_lost: Callable[[str], None],
) -> None:
    """Send all sound, and note the events in `captions`; `on_change` is called after each.

    When the connection is lost `on_lost` is called with the reason, and another one is tried for: sound without final
    words is sent again, and times go on. url: the base of the API. Raises NoSession, after which `captions` has what
    was final, once the server was away for `give_up_seconds`.
    """
    address = f"{url.replace('http', 'ws', 1)}/realtime?intent=transcription"
    audio = {"format": {"type": "audio/pcm", "rate": sound.rate}, "transcription": dict(wishes.transcription)}
    update = {"type": "session.update", "session": {"type": "transcription", "audio": {"input": audio}}}
    kept = KeptSound(sound)
    is_started = False
    away_since = time.monotonic()
    while True:
        deadline = away_since + wishes.give_up_seconds
        settled = captions.settled_seconds
        connected_at = math.inf
        try:
            connection = await _connect(address, key, deadline)
            async with connection:
                await _send(connection, update)
                await _expect_update(connection)
                connected_at = time.monotonic()
                if not is_started:
                    sound.start()
                    is_started = True
                captions.restart(kept.first_seconds)
                await _exchange(connection, kept, update, captions, on_change)
                return
        except TimeoutError as exc:
            raise NoSession(f"the last words did not come within {FINAL_SECONDS:.0f} s") from exc
        except (_Lost, ConnectionClosed) as exc:
            reason = str(exc) if isinstance(exc, _Lost) else _ending(connection)
            now = time.monotonic()
            if captions.settled_seconds > settled or now - connected_at >= STEADY_SECONDS:
                away_since = now
            if now + RETRY_SECONDS > away_since + wishes.give_up_seconds:
                raise NoSession(reason) from exc
            on_lost(reason)
            await asyncio.sleep(RETRY_SECONDS)


async def _exchange(
    connection: ClientConnection,
    kept: KeptSound,
    update: Mapping[str, Any],
    captions: Captions,
    on_change: Callable[[], None],
) -> None:
    """Send what is kept and all that comes, until the last words have come. Raises _Lost and ConnectionClosed."""

    def note() -> None:
        kept.discard_before(captions.settled_seconds)
        on_change()

    sending = asyncio.create_task(_send_sound(connection, kept, update))
    receiving = asyncio.create_task(_receive(connection, captions, note))
    try:
        await asyncio.wait({sending, receiving}, return_when=asyncio.FIRST_COMPLETED)
        if not receiving.done():
            with suppress(ConnectionClosed):  # what came before that is still to be read
                await sending
            await asyncio.wait_for(receiving, FINAL_SECONDS)
        await receiving
    finally:
        for task in (sending, receiving):
            task.cancel()
        await asyncio.gather(sending, receiving, return_exceptions=True)


async def _connect(address: str, key: str, deadline: float) -> ClientConnection:
    headers = {"authorization": f"Bearer {key}"} if key else {}
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
    raise _Lost(_ending(connection))


async def _send(connection: ClientConnection, event: Mapping[str, Any]) -> None:
    await connection.send(json.dumps(event))


async def _send_sound(connection: ClientConnection, kept: KeptSound, update: Mapping[str, Any]) -> None:
    for piece in kept.pieces():
        await _append(connection, piece)
    while (new := await kept.read()) is not None:
        await _append(connection, new)
    await _send(connection, {"type": "input_audio_buffer.commit"})
    # Changes nothing. Its answer comes after all that was spoken has begun: then no utterance is still to begin.
    await _send(connection, update)


async def _append(connection: ClientConnection, piece: bytes) -> None:
    await _send(connection, {"type": "input_audio_buffer.append", "audio": base64.b64encode(piece).decode()})


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
    raise _Lost(_ending(connection))


def _ending(connection: ClientConnection) -> str:
    reason = connection.close_reason or (f"code {connection.close_code}" if connection.close_code else "it is gone")
    return f"the server has ended the session: {reason}"
