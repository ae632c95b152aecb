"""The settings of a session of `/v1/realtime`: how OpenAI writes them, now and in its older events, and what they mean.

docs/live.md says it in words.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator

from parakeet_stt.errors import InvalidField, UnsupportedField
from parakeet_stt.server.live.pcm import Encoding, is_rate
from parakeet_stt.server.live.stream import LiveOptions
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.options import (
    PaddingMs,
    SilenceMs,
    Threshold,
    check_realtime_model,
    parse_language,
    parse_phrases,
    to_invalid_field,
)
from parakeet_stt.streaming.chunk_decoder import ChunkRules
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.vad import offset_for

SESSION_OBJECT = "realtime.transcription_session"
TRANSCRIPTION = "session.audio.input.transcription"
LOGPROBS = "item.input_audio_transcription.logprobs"
SILENCE_MS = {"low": 1200, "medium": 600, "auto": 600, "high": 300}  # of a pause, for each eagerness
CHUNK_RULES = {
    "minimal": ChunkRules(right_context=4, length=6),
    "low": ChunkRules(right_context=6, length=8),
    "medium": ChunkRules(),
    "high": ChunkRules(length=14),
    "xhigh": ChunkRules(length=None),
}  # for each delay
OLDER_NAMES = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}  # of formats
OLDER_FIELDS = ("model", "prompt", "language")  # of input_audio_transcription
ENCODINGS: dict[str, Encoding] = {"audio/pcm": "pcm_s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}


class _Part(BaseModel):
    model_config = ConfigDict(extra="ignore", frozen=True)  # an error may make a voice agent reconnect


class Format(_Part):
    """The encoding of the audio."""

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
    """An utterance ends after a pause."""

    type: Literal["server_vad"] = "server_vad"
    threshold: Threshold = 0.5
    prefix_padding_ms: PaddingMs = 300
    silence_duration_ms: SilenceMs = 500
    idle_timeout_ms: int | None = None

    @field_validator("idle_timeout_ms")
    @classmethod
    def _is_unset(cls, timeout: int | None) -> None:
        if timeout is not None:
            raise ValueError("it asks for a model's answer to silence, and a transcription session has none")

    def to_rules(self, longest_ms: int) -> EndpointRules:
        """The same for an endpointer. longest_ms: of an utterance."""
        return _rules(self.threshold, self.prefix_padding_ms, self.silence_duration_ms, longest_ms)


class SemanticVad(_Part):
    """An utterance ends after a pause whose length depends on the eagerness; the words make no difference here."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    def to_rules(self, longest_ms: int) -> EndpointRules:
        """The same for an endpointer. longest_ms: of an utterance."""
        return _rules(0.5, 300, SILENCE_MS[self.eagerness], longest_ms)


def _rules(onset: float, pad_ms: int, silence_ms: int, longest_ms: int) -> EndpointRules:
    return EndpointRules(True, onset, offset_for(onset), silence_ms, pad_ms, longest_ms=longest_ms)


class Transcription(_Part):
    """What a client asks of the model."""

    model: str | None = None
    language: str | None = None
    languages: list[str] | None = None
    keywords: list[str] | None = None
    prompt: str | None = None
    delay: Literal["minimal", "low", "medium", "high", "xhigh"] | None = None


class NoiseReduction(_Part):
    """Accepted, without effect: the model is trained on noise."""

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

    def to_options(self, longest_ms: int) -> LiveOptions:
        """The same for a stream. longest_ms: of an utterance. Raises InvalidField for too many or too long keywords."""
        given = self.audio.input
        asked = given.transcription or Transcription()
        vad = given.turn_detection
        return LiveOptions(
            ENCODINGS[given.format.type],
            given.format.hz,
            vad.to_rules(longest_ms) if vad else EndpointRules(detects=False),
            CHUNK_RULES[asked.delay or "medium"],
            parse_phrases(asked.keywords or [], asked.prompt or "", param=f"{TRANSCRIPTION}.keywords"),
        )

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities are included."""
        return LOGPROBS in (self.include or ())


def configure(before: Configuration, given: Mapping[str, Any], model: ServedModel) -> Configuration:
    """The settings with the given fields changed. Raises RequestError, naming the field."""
    given_type = given.get("type", "transcription")
    if given_type != "transcription":
        raise UnsupportedField("session.type: only transcription sessions are served", param="session.type")
    merged = _merge(before.model_dump(), given)
    try:
        after = Configuration.model_validate(merged)
    except ValidationError as exc:
        raise to_invalid_field(exc, "session", hidden=("server_vad", "semantic_vad")) from None
    asked = after.audio.input.transcription or Transcription()
    if asked.model:
        check_realtime_model(asked.model, model.name, param=f"{TRANSCRIPTION}.model")
    for language in [asked.language, *(asked.languages or ())]:
        if language:
            parse_language(language, model.languages, param=f"{TRANSCRIPTION}.language")
    after.to_options(0)  # checks the keywords
    return after


def _merge(before: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge objects key by key, except turn_detection and format, of which there are several kinds."""
    after = copy.copy(before)
    for name, value in given.items():
        kept = before.get(name)
        is_both = isinstance(value, Mapping) and isinstance(kept, dict) and name not in ("turn_detection", "format")
        after[name] = _merge(kept, value) if is_both and kept is not None else value
    return after


def from_older_form(given: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of `transcription_session.update` in the present form. Raises InvalidField."""
    names = {"input_audio_transcription": "transcription", "turn_detection": "turn_detection",
             "input_audio_noise_reduction": "noise_reduction"}  # fmt: skip
    changed: dict[str, Any] = {new: given[old] for old, new in names.items() if old in given}
    if "input_audio_format" in given:
        kinds = {name: kind for kind, name in OLDER_NAMES.items()}
        asked = given["input_audio_format"]
        if not isinstance(asked, str) or asked not in kinds:
            raise InvalidField(
                f"session.input_audio_format: one of {', '.join(kinds)} is expected",
                param="session.input_audio_format",
            )
        changed["format"] = {"type": kinds[asked]}
    after: dict[str, Any] = {"audio": {"input": changed}}
    if "include" in given:
        after["include"] = given["include"]
    return after


def new_session_id() -> str:
    """A session's name."""
    return f"sess_{uuid.uuid4().hex}"


def render_session(configuration: Configuration, session_id: str, expires_at: int) -> dict[str, Any]:
    """A session as OpenAI describes it. expires_at: unix time."""
    described = configuration.model_dump()
    given = configuration.audio.input.format
    rate = {"rate": given.hz} if given.type == "audio/pcm" else {}
    described["audio"]["input"]["format"] = {"type": given.type, **rate}
    return {"id": session_id, "object": SESSION_OBJECT, "expires_at": expires_at, **described}


def render_older_session(configuration: Configuration, session_id: str, expires_at: int) -> dict[str, Any]:
    """A session as OpenAI's older events describe it. expires_at: unix time."""
    given = configuration.audio.input
    asked = given.transcription and given.transcription.model_dump(include=set(OLDER_FIELDS))
    return {
        "id": session_id,
        "object": SESSION_OBJECT,
        "expires_at": expires_at,
        "input_audio_format": OLDER_NAMES[given.format.type],
        "input_audio_transcription": asked and {name: value or "" for name, value in asked.items()},
        "turn_detection": given.turn_detection and given.turn_detection.model_dump(exclude={"idle_timeout_ms"}),
        "input_audio_noise_reduction": given.noise_reduction and given.noise_reduction.model_dump(),
        "include": configuration.include,
    }
