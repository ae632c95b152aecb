"""The events of `/v1/realtime`: OpenAI's realtime transcription, in its present and its older events."""

from __future__ import annotations

import base64
import binascii
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import InvalidField, RequestError
from parakeet_stt.server.live.connection import Outgoing
from parakeet_stt.server.live.realtime_session import (
    Configuration,
    configure,
    new_session_id,
    render_older_session,
    render_session,
)
from parakeet_stt.server.live.stream import LiveStream
from parakeet_stt.server.model import ServedModel
from parakeet_stt.streaming.chunk_decoder import Failed, Final, Partial
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.streaming.turns import Event, SpeechStarted, SpeechStopped
from parakeet_stt.text.openai_json import delta_text, render_coverage, render_logprobs, round_seconds
from parakeet_stt.text.transcript import SpeechCoverage, Word

SESSION_SECONDS = 1800  # in `expires_at`; sessions are not ended by it
LEAST_COMMIT_MS = 100
MAX_AUDIO = 15 << 20  # bytes of base64 in one event
MAX_EVENT_CHARACTERS = 256 << 10  # of an event without audio: ten times those that a session's longest settings have


class RealtimeProtocol:
    """One client of `/v1/realtime`; see `connection.LiveProtocol`."""

    def __init__(
        self,
        stream: LiveStream,
        configuration: Configuration,
        *,
        model: ServedModel,
        by_hand: EndpointRules,
        is_older: bool,
    ) -> None:
        """by_hand: rules without turn detection. is_older: whether the client expects OpenAI's older events."""
        self.stream = stream
        self._configuration = configuration
        self._model, self._by_hand = model, by_hand
        self._is_older = is_older
        self.session_id, self._expires_at = new_session_id(), int(time.time()) + SESSION_SECONDS
        self._item_ids: dict[int, str] = {}  # of turns that are not final
        self._previous: str | None = None  # the last committed item
        self._has_delta: set[int] = set()  # turns
        self._last_committed = -1  # item
        self._committed_until = 0.0  # audio that the client has committed or cleared, in seconds

    def opening_messages(self) -> Sequence[Outgoing]:
        """The session as it begins."""
        return (self._session("created"),)

    async def handle_message(self, message: str | bytes) -> Sequence[Outgoing] | None:
        """One client event."""
        event_id = None
        try:
            event = _parse(message)
            event_id = event.get("event_id")
            return await self._handle_event(event, len(message))
        except RequestError as exc:
            return (self._error(exc, event_id if isinstance(event_id, str) else None),)

    async def _handle_event(self, event: Mapping[str, Any], characters: int) -> Sequence[Outgoing]:
        if event.get("type") == "input_audio_buffer.append":
            await self.stream.receive_audio(_decode_audio(event.get("audio")))
            return ()
        if characters > MAX_EVENT_CHARACTERS:
            raise RequestError(f"an event without audio may have at most {MAX_EVENT_CHARACTERS} characters",
                               code="event_too_large")  # fmt: skip
        await self.stream.flush()
        match event.get("type"):
            case "input_audio_buffer.commit":
                return await self._commit()
            case "input_audio_buffer.clear":
                await self.stream.clear()
                self._committed_until = self.stream.received_seconds
                self._item_ids = {item: name for item, name in self._item_ids.items() if item <= self._last_committed}
                self._has_delta = {item for item in self._has_delta if item <= self._last_committed}
                return (self._event("input_audio_buffer.cleared"),)
            case "session.update":
                self._change(_object(event, "session"))
                return (self._session("updated"),)
            case "transcription_session.update":
                self._is_older = True
                self._change(_object(event, "session"))
                return (self._session("updated"),)
        raise RequestError(f"type: {event.get('type')!r} is no event of a transcription session", param="type",
                           code="unknown_event")  # fmt: skip

    def render_event(self, event: Event) -> Sequence[Outgoing]:
        """An event of the session as OpenAI's events."""
        item_id = self._item_ids.setdefault(event.item, _new_item_id())
        match event:
            case SpeechStarted():
                place = {"audio_start_ms": _ms(event.at), "item_id": item_id}
                return (self._event("input_audio_buffer.speech_started", **place),)
            case SpeechStopped():
                self._last_committed = event.item
                stopped = self._event("input_audio_buffer.speech_stopped", audio_end_ms=_ms(event.end), item_id=item_id)
                detects = self._configuration.audio.input.turns is not None
                return (*((stopped,) if detects else ()), *self._committed(item_id))
            case Partial():
                return self._delta(event.item, item_id, event.stable)
            case Final():
                del self._item_ids[event.item]
                deltas = self._delta(event.item, item_id, event.rest)
                self._has_delta.discard(event.item)
                seconds = (event.end - event.start) / SAMPLE_RATE
                return (*deltas, self._completed(item_id, event.words, seconds, event.speech))
            case Failed():
                del self._item_ids[event.item]
                self._has_delta.discard(event.item)
                error = {"type": "server_error", "code": "internal_error", "param": None,
                         "message": "The model failed on this audio."}  # fmt: skip
                return (self._transcription("failed", item_id, {"error": error}),)

    def render_error(self, error: RequestError) -> Outgoing:
        """An error event."""
        return self._error(error, None)

    async def _commit(self) -> Sequence[Outgoing]:
        """End the open turn; without one, the silence since the last turn becomes an item without words.

        Only what the client has committed counts as committed here: with turn detection an utterance may have ended
        just now, and voice agents give up at an error about an empty buffer.
        """
        received, silence = self.stream.received_seconds, self.stream.buffered_seconds
        length = round(1000 * (received - self._committed_until))
        if length < LEAST_COMMIT_MS:
            raise RequestError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{LEAST_COMMIT_MS}ms of audio, but buffer only has {length}.00ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self._committed_until = received
        is_open = self.stream.open_seconds > 0
        await self.stream.commit()
        if is_open:
            return ()
        item_id = _new_item_id()
        return (*self._committed(item_id), self._completed(item_id, (), silence, SpeechCoverage()))

    def _change(self, given: Mapping[str, Any]) -> None:
        after = configure(self._configuration, given, self._model)
        if self.stream.received_seconds and after.audio.input.format != self._configuration.audio.input.format:
            raise InvalidField("session.audio.input.format can't change once audio has come",
                               param="session.audio.input.format")  # fmt: skip
        self._configuration = after
        self.stream.configure(after.to_options(self._by_hand, self._model.languages))

    def _committed(self, item_id: str) -> Sequence[Outgoing]:
        previous, self._previous = self._previous, item_id
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        kinds = ("created",) if self._is_older else ("added", "done")
        return (
            self._event("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous),
            *(self._event(f"conversation.item.{kind}", previous_item_id=previous, item=item) for kind in kinds),
        )

    def _completed(
        self, item_id: str, words: Sequence[Word], seconds: float, speech: SpeechCoverage | None
    ) -> Outgoing:
        body = {
            "transcript": " ".join(word.text for word in words),
            "usage": {"type": "duration", "seconds": round_seconds(seconds)},
            **self._logprobs(words, is_first=True),
            **({"speech": render_coverage(speech)} if speech and self._configuration.has_coverage else {}),
        }
        return self._transcription("completed", item_id, body)

    def _delta(self, item: int, item_id: str, words: Sequence[Word]) -> Sequence[Outgoing]:
        if not words:
            return ()
        is_first = item not in self._has_delta
        self._has_delta.add(item)
        body = {"delta": delta_text(words, is_first=is_first), **self._logprobs(words, is_first=is_first)}
        return (self._transcription("delta", item_id, body),)

    def _logprobs(self, words: Sequence[Word], *, is_first: bool) -> dict[str, Any]:
        if not self._configuration.has_logprobs:
            return {}
        return {"logprobs": list(render_logprobs([t for word in words for t in word.tokens], is_first=is_first))}

    def _transcription(self, kind: str, item_id: str, body: Mapping[str, Any]) -> Outgoing:
        name = f"conversation.item.input_audio_transcription.{kind}"
        return self._event(name, item_id=item_id, content_index=0, **body)

    def _session(self, kind: str) -> Outgoing:
        render, prefix = (render_older_session, "transcription_") if self._is_older else (render_session, "")
        session = render(self._configuration, self.session_id, self._expires_at)
        return self._event(f"{prefix}session.{kind}", session=session)

    def _event(self, kind: str, **body: Any) -> Outgoing:
        return {"type": kind, "event_id": f"event_{uuid.uuid4().hex[:20]}", **body}

    def _error(self, error: RequestError, event_id: str | None) -> Outgoing:
        body = {"type": "invalid_request_error", "code": error.code, "message": error.message, "param": error.param,
                "event_id": event_id}  # fmt: skip
        return self._event("error", error=body)


def _parse(message: str | bytes) -> Mapping[str, Any]:
    try:
        event = json.loads(message) if isinstance(message, str) else None
    except (ValueError, RecursionError):
        event = None
    if not isinstance(event, dict):
        raise RequestError("an event is to be a JSON object in a text message", code="invalid_json")
    return event


def _object(event: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = event.get(name)
    if not isinstance(value, dict):
        raise InvalidField(f"{name}: an object is expected", param=name)
    return value


def _decode_audio(audio: object) -> bytes:
    if not isinstance(audio, str):
        raise InvalidField("audio: base64 is expected", param="audio")
    if len(audio) > MAX_AUDIO:
        raise InvalidField(f"audio: at most {MAX_AUDIO >> 20} MiB are taken in one event", param="audio")
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField("audio: this is not base64", param="audio") from None


def _ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE


def _new_item_id() -> str:
    return f"item_{uuid.uuid4().hex[:20]}"
