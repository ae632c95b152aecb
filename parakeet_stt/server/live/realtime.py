"""Knows OpenAI's realtime transcription: its events, in the present and the older names. Does not know sockets.

What a client's settings mean here is in `Configuration`; docs/live.md says it in words.
"""

from __future__ import annotations

import base64
import binascii
import copy
import json
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import InvalidField, RequestError, UnsupportedField
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.server.files.form import LONGEST_KEYWORD, MOST_KEYWORDS, OPENAI_NAMES, phrases
from parakeet_stt.server.live.connection import Outgoing
from parakeet_stt.server.live.live_vad import Encoding, is_rate
from parakeet_stt.server.live.stream import Live, LiveOptions
from parakeet_stt.streaming.session import Event, Failed, Final, Spoken, Started, StepRules, Stopped, TurnRules
from parakeet_stt.text.formats import as_logprobs
from parakeet_stt.text.transcript import Word

LOGPROBS = "item.input_audio_transcription.logprobs"
SESSION_SECONDS = 1800  # in `expires_at`; sessions are not ended by it
LEAST_COMMIT_MS = 100
MOST_AUDIO = 15 << 20  # bytes of base64 in one event
# What OpenAI's own clients name for sessions, beside the names of its transcription models.
REALTIME_NAMES = OPENAI_NAMES | {"gpt-realtime-whisper", "gpt-live-transcribe", "gpt-4o-mini-transcribe-2025-12-15"}
# What they name when they connect, and transcribe with a session of the other type: no difference is made by it.
CONVERSATION_NAMES = frozenset({"gpt-realtime", "gpt-realtime-mini", "gpt-4o-realtime-preview"})
PAUSE_OF = {"low": 1200, "medium": 600, "auto": 600, "high": 300}  # ms, for an eagerness
STEPS_OF = {
    "minimal": StepRules(right=4, part=6),
    "low": StepRules(right=6, part=8),
    "medium": StepRules(),
    "high": StepRules(part=14),
    "xhigh": StepRules(part=None),
}  # for a delay
OLD_FORMATS = {"pcm16": {"type": "audio/pcm", "rate": 24_000}, "g711_ulaw": {"type": "audio/pcmu"},
               "g711_alaw": {"type": "audio/pcma"}}  # fmt: skip
ENCODINGS: dict[str, Encoding] = {"audio/pcm": "pcm_s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # an error may make a voice agent reconnect


class Format(_Part):
    """How the audio is written."""

    type: Literal["audio/pcm", "audio/pcmu", "audio/pcma"] = "audio/pcm"
    rate: int | None = None

    @field_validator("rate")
    @classmethod
    def _is_possible(cls, rate: int | None) -> int | None:
        if rate is not None and not is_rate(rate):
            raise ValueError("24000 Hz is OpenAI's; 8000 to 48000 Hz are understood")
        return rate

    @property
    def hz(self) -> int:
        """The rate: 24 kHz for PCM unless it is given, 8 kHz for G.711."""
        return (self.rate or 24_000) if self.type == "audio/pcm" else 8_000


class ServerVad(_Part):
    """Turns end after a pause."""

    type: Literal["server_vad"] = "server_vad"
    threshold: float = Field(default=0.5, gt=0, lt=1)
    prefix_padding_ms: int = Field(default=300, ge=0, le=2000)
    silence_duration_ms: int = Field(default=500, ge=64, le=10_000)
    idle_timeout_ms: int | None = None

    @field_validator("idle_timeout_ms")
    @classmethod
    def _is_unset(cls, timeout: int | None) -> None:
        if timeout is not None:
            raise ValueError("it asks for a model's answer to silence, and a transcription session has none")

    @property
    def rules(self) -> tuple[float, int, int]:
        """Threshold, padding and pause."""
        return self.threshold, self.prefix_padding_ms, self.silence_duration_ms


class SemanticVad(_Part):
    """Turns end after a pause whose length goes with the eagerness: what is said makes no difference here."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    @property
    def rules(self) -> tuple[float, int, int]:
        """Threshold, padding and pause."""
        return 0.5, 300, PAUSE_OF[self.eagerness]


class Transcription(_Part):
    """What is wanted of the model."""

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    keywords: list[Annotated[str, Field(max_length=LONGEST_KEYWORD)]] | None = Field(
        default=None, max_length=MOST_KEYWORDS
    )
    prompt: str | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class NoiseReduction(_Part):
    """Taken, and without effect: the model is trained on noise."""

    type: Literal["near_field", "far_field"] | None = None


class Input(_Part):
    """`session.audio.input`."""

    format: Format = Format()
    noise_reduction: NoiseReduction | None = None
    transcription: Transcription | None = Transcription()
    turn_detection: Annotated[ServerVad | SemanticVad, Field(discriminator="type")] | None = ServerVad()


class Audio(_Part):
    """`session.audio`."""

    input: Input = Input()


class Configuration(_Part):
    """A session's settings, as OpenAI writes them."""

    type: Literal["transcription"] = "transcription"
    audio: Audio = Audio()
    include: list[Literal["item.input_audio_transcription.logprobs"]] | None = None

    def options(self, longest_ms: int) -> LiveOptions:
        """What it means here. longest_ms: of an utterance."""
        given = self.audio.input
        wanted = given.transcription or Transcription()
        turns = TurnRules(detects=False)
        if given.turn_detection:
            onset, pad_ms, silence_ms = given.turn_detection.rules
            turns = TurnRules(True, onset, SpeechRules.offset_for(onset), silence_ms, pad_ms, longest_ms=longest_ms)
        listened_for = phrases(wanted.keywords or [], wanted.prompt or "")
        steps = STEPS_OF[wanted.delay or "medium"]
        return LiveOptions(ENCODINGS[given.format.type], given.format.hz, turns, steps, listened_for)


def configured(
    before: Configuration, given: Mapping[str, Any], *, served: str, languages: Sequence[str]
) -> Configuration:
    """The settings with the fields that are given changed. Raises RequestError, naming the field."""
    given_type = given.get("type", "transcription")
    if given_type != "transcription":
        raise UnsupportedField("session.type: only transcription sessions are served", param="session.type")
    merged = _merged(before.model_dump(), given)
    try:
        after = Configuration.model_validate(merged)
    except ValidationError as exc:
        problem = exc.errors(include_input=False)[0]
        places = [str(part) for part in problem["loc"] if part not in ("server_vad", "semantic_vad")]
        field = ".".join(["session", *places])
        raise InvalidField(f"{field}: {problem['msg'].removeprefix('Value error, ')}", param=field) from None
    wanted = after.audio.input.transcription or Transcription()
    place = "session.audio.input.transcription"
    if wanted.model and wanted.model != served and wanted.model not in REALTIME_NAMES:
        raise InvalidField(f"{place}.model: {wanted.model!r} is not served here; {served!r} is", param=f"{place}.model")
    for language in [wanted.language, *(wanted.languages or ())]:
        if language and language.lower().split("-")[0] not in languages:
            known = ", ".join(languages)
            raise InvalidField(f"{place}.language: {language!r} is not known to this model: {known}",
                               param=f"{place}.language")  # fmt: skip
    return after


def _merged(before: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Objects are merged key by key, except turn_detection, which is one of several kinds."""
    after = copy.copy(before)
    for name, value in given.items():
        kept = before.get(name)
        is_both = isinstance(value, Mapping) and isinstance(kept, dict) and name not in ("turn_detection", "format")
        after[name] = _merged(kept, value) if is_both and kept is not None else value
    return after


def from_older(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `transcription_session.update` in the present form. Raises InvalidField."""
    names = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection",
             "input_audio_noise_reduction": "noise_reduction"}  # fmt: skip
    changed: dict[str, Any] = {new: given[old] for old, new in names.items() if old in given}
    if "input_audio_format" in given:
        form = given["input_audio_format"]
        if not isinstance(form, str) or form not in OLD_FORMATS:
            raise InvalidField(f"session.input_audio_format: one of {', '.join(OLD_FORMATS)} is expected",
                               param="session.input_audio_format")  # fmt: skip
        changed["format"] = OLD_FORMATS[form]
    after: dict[str, Any] = {"audio": {"input": changed}}
    if "include" in given:
        after["include"] = given["include"]
    return after


def new_session_id() -> str:
    """A session's name."""
    return f"sess_{uuid.uuid4().hex}"


def described(configuration: Configuration, session_id: str, expires_at: int) -> dict[str, Any]:
    """A session as OpenAI describes it."""
    return {
        "id": session_id,
        "object": "realtime.transcription_session",
        "expires_at": expires_at,
        **_with_rate(configuration),
    }


def _with_rate(configuration: Configuration) -> dict[str, Any]:
    described = configuration.model_dump()
    form = configuration.audio.input.format
    described["audio"]["input"]["format"] = {
        "type": form.type,
        **({"rate": form.hz} if form.type == "audio/pcm" else {}),
    }
    return described


class RealtimeProtocol:
    """One client of `/v1/realtime`; see `parakeet_stt.server.live.connection.LiveProtocol`."""

    def __init__(
        self,
        live: Live,
        configuration: Configuration,
        *,
        served: str,
        languages: Sequence[str],
        longest_ms: int,
        is_older: bool,
    ) -> None:
        self.live = live
        self._configuration = configuration
        self._served, self._languages, self._longest_ms = served, languages, longest_ms
        self._is_older = is_older
        self._id, self._expires_at = new_session_id(), int(time.time()) + SESSION_SECONDS
        self._items: dict[int, str] = {}  # utterances that are not final
        self._previous: str | None = None  # the last one committed
        self._has_said: set[int] = set()  # utterances with a delta
        self._open: int | None = None  # the latest utterance, until it is committed

    def opening(self) -> Sequence[Outgoing]:
        """The session as it begins."""
        return (self._session("created"),)

    async def handle(self, message: str | bytes) -> Sequence[Outgoing] | None:
        """One client event."""
        event_id = None
        try:
            event = _parsed(message)
            event_id = event.get("event_id")
            return await self._done(event)
        except RequestError as exc:
            return (self._error(exc, event_id if isinstance(event_id, str) else None),)

    async def _done(self, event: Mapping[str, Any]) -> Sequence[Outgoing]:
        match event.get("type"):
            case "input_audio_buffer.append":
                await self.live.hear(_sound(event.get("audio")))
                return ()
            case "input_audio_buffer.commit":
                self._commit()
                return ()
            case "input_audio_buffer.clear":
                self.live.clear()
                if self._open is not None:
                    self._items.pop(self._open, None)
                    self._has_said.discard(self._open)
                return (self._event("input_audio_buffer.cleared"),)
            case "session.update":
                self._change(_object(event, "session"))
                return (self._session("updated"),)
            case "transcription_session.update":
                self._is_older = True
                self._change(from_older(_object(event, "session")))
                return (self._session("updated"),)
        raise RequestError(f"type: {event.get('type')!r} is no event of a transcription session", param="type",
                           code="unknown_event")  # fmt: skip

    def told(self, event: Event) -> Sequence[Outgoing]:
        """An event of the session in OpenAI's words."""
        self._open = None if isinstance(event, Stopped) else event.item if isinstance(event, Started) else self._open
        item_id = self._items.setdefault(event.item, f"item_{uuid.uuid4().hex[:20]}")
        match event:
            case Started():
                place = {"audio_start_ms": _ms(event.at), "item_id": item_id}
                return (self._event("input_audio_buffer.speech_started", **place),)
            case Stopped():
                return self._committed(event, item_id)
            case Spoken():
                return self._delta(event.item, item_id, event.stable)
            case Final():
                del self._items[event.item]
                completed = {
                    "transcript": " ".join(word.text for word in event.words),
                    "usage": {"type": "duration", "seconds": round((event.end - event.start) / SAMPLE_RATE, 3)},
                    **self._logprobs(event.words, first=True),
                }
                deltas = self._delta(event.item, item_id, event.rest)
                self._has_said.discard(event.item)
                return (*deltas, self._transcription("completed", item_id, completed))
            case Failed():
                del self._items[event.item]
                self._has_said.discard(event.item)
                error = {"type": "server_error", "code": "internal_error", "param": None,
                         "message": "The model failed on this audio."}  # fmt: skip
                return (self._transcription("failed", item_id, {"error": error}),)

    def refused(self, error: RequestError) -> Outgoing:
        """An error event."""
        return self._error(error, None)

    def _commit(self) -> None:
        length = round(1000 * self.live.open_seconds)
        if length < LEAST_COMMIT_MS:
            raise RequestError(
                "Error committing input audio buffer: buffer too small. Expected at least "
                f"{LEAST_COMMIT_MS}ms of audio, but buffer only has {length}.00ms of audio.",
                code="input_audio_buffer_commit_empty",
            )
        self.live.commit()

    def _change(self, given: Mapping[str, Any]) -> None:
        after = configured(self._configuration, given, served=self._served, languages=self._languages)
        if self.live.heard_seconds and after.audio.input.format != self._configuration.audio.input.format:
            raise InvalidField("session.audio.input.format can't change once audio has come",
                               param="session.audio.input.format")  # fmt: skip
        self._configuration = after
        self.live.change(after.options(self._longest_ms))

    def _committed(self, event: Stopped, item_id: str) -> Sequence[Outgoing]:
        previous, self._previous = self._previous, item_id
        item = {
            "id": item_id,
            "object": "realtime.item",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_audio", "transcript": None}],
        }
        stopped = [self._event("input_audio_buffer.speech_stopped", audio_end_ms=_ms(event.end), item_id=item_id)]
        kinds = ("created",) if self._is_older else ("added", "done")
        return (
            *(stopped if self._configuration.audio.input.turn_detection else ()),
            self._event("input_audio_buffer.committed", item_id=item_id, previous_item_id=previous),
            *(self._event(f"conversation.item.{kind}", previous_item_id=previous, item=item) for kind in kinds),
        )

    def _delta(self, item: int, item_id: str, words: Sequence[Word]) -> Sequence[Outgoing]:
        if not words:
            return ()
        first = item not in self._has_said
        self._has_said.add(item)
        text = " ".join(word.text for word in words)
        body = {"delta": text if first else f" {text}", **self._logprobs(words, first=first)}
        return (self._transcription("delta", item_id, body),)

    def _logprobs(self, words: Sequence[Word], *, first: bool) -> dict[str, Any]:
        if LOGPROBS not in (self._configuration.include or ()):
            return {}
        return {"logprobs": list(as_logprobs([token for word in words for token in word.tokens], first=first))}

    def _transcription(self, kind: str, item_id: str, body: Mapping[str, Any]) -> Outgoing:
        name = f"conversation.item.input_audio_transcription.{kind}"
        return self._event(name, item_id=item_id, content_index=0, **body)

    def _session(self, kind: str) -> Outgoing:
        session = described(self._configuration, self._id, self._expires_at)
        return self._event(f"{'transcription_' if self._is_older else ''}session.{kind}", session=session)

    def _event(self, kind: str, **body: Any) -> Outgoing:
        return {"type": kind, "event_id": f"event_{uuid.uuid4().hex[:20]}", **body}

    def _error(self, error: RequestError, event_id: str | None) -> Outgoing:
        body = {"type": "invalid_request_error", "code": error.code, "message": error.message, "param": error.param,
                "event_id": event_id}  # fmt: skip
        return self._event("error", error=body)


def _parsed(message: str | bytes) -> Mapping[str, Any]:
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


def _sound(audio: object) -> bytes:
    if not isinstance(audio, str):
        raise InvalidField("audio: base64 is expected", param="audio")
    if len(audio) > MOST_AUDIO:
        raise InvalidField(f"audio: at most {MOST_AUDIO >> 20} MiB are taken in one event", param="audio")
    try:
        return base64.b64decode(audio, validate=True)
    except (binascii.Error, ValueError):
        raise InvalidField("audio: this is not base64", param="audio") from None


def _ms(samples: int) -> int:
    return samples * 1000 // SAMPLE_RATE
