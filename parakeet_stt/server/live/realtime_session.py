"""The settings of a session of `/v1/realtime`: how OpenAI writes them, now and in its older events, and what they mean.

docs/live.md says it in words.
"""

from __future__ import annotations

import copy
import uuid
from collections.abc import Mapping, Sequence
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
    parse_languages,
    parse_phrases,
    parse_spoken,
    to_invalid_field,
)
from parakeet_stt.streaming.chunk_decoder import ChunkRules
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.text.phrases import with_script
from parakeet_stt.vad import offset_for

SESSION_OBJECT = "realtime.transcription_session"
TRANSCRIPTION = "session.audio.input.transcription"
LOGPROBS = "item.input_audio_transcription.logprobs"
COVERAGE = "item.input_audio_transcription.coverage"  # not OpenAI's
SILENCE_MS = {"low": 1200, "medium": 600, "auto": 600, "high": 300}  # of a pause, for each eagerness
CHUNK_RULES = {
    "minimal": ChunkRules(right_context=4, length=6),
    "low": ChunkRules(right_context=6, length=8),
    "medium": ChunkRules(),
    "high": ChunkRules(length=14),
    "xhigh": ChunkRules(length=None),
}  # for each delay
# Models without turn detection at OpenAI: their clients leave the field out, and commit by hand.
MODELS_BY_HAND = ("gpt-realtime-whisper", "gpt-live-transcribe")
OLDER_NAMES = {"audio/pcm": "pcm16", "audio/pcmu": "g711_ulaw", "audio/pcma": "g711_alaw"}  # of formats
OLDER_FIELDS = {
    "input_audio_transcription": "transcription",
    "turn_detection": "turn_detection",
    "input_audio_noise_reduction": "noise_reduction",
}  # of a session, by their present names in `session.audio.input`; `input_audio_format` is one more
OLDER_TRANSCRIPTION_FIELDS = ("model", "prompt", "language")
ENCODINGS: dict[str, Encoding] = {"audio/pcm": "pcm_s16le", "audio/pcmu": "mulaw", "audio/pcma": "alaw"}


# Of the pause that ends an utterance inside a turn. Within it and the padding no chunk ends, whatever the delay.
PAUSE_MS = 600


def rules_by_hand(onset: float, longest_seconds: float) -> EndpointRules:
    """Rules for turns that only commits end. onset: speech probability. longest_seconds: of an utterance."""
    longest_ms = round(1000 * longest_seconds)
    return EndpointRules(True, onset, offset_for(onset), PAUSE_MS, ServerVad().prefix_padding_ms, longest_ms=longest_ms)


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
        onset, padding = self.threshold, self.prefix_padding_ms
        return EndpointRules(False, onset, offset_for(onset), self.silence_duration_ms, padding, longest_ms=longest_ms)


class SemanticVad(_Part):
    """An utterance ends after a pause whose length depends on the eagerness; the words make no difference here."""

    type: Literal["semantic_vad"]
    eagerness: Literal["low", "medium", "high", "auto"] = "auto"

    def to_rules(self, longest_ms: int) -> EndpointRules:
        """The same for an endpointer. longest_ms: of an utterance."""
        return ServerVad(silence_duration_ms=SILENCE_MS[self.eagerness]).to_rules(longest_ms)


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

    @property
    def turns(self) -> ServerVad | SemanticVad | None:
        """The turn detection in force: as the client gave it, or else as its model has it at OpenAI."""
        model = (self.transcription and self.transcription.model) or ""
        is_by_hand = "turn_detection" not in self.model_fields_set and model.startswith(MODELS_BY_HAND)
        return None if is_by_hand else self.turn_detection


class Audio(_Part):
    """`session.audio`."""

    input: Input = Input()


class Configuration(_Part):
    """A session's settings, as OpenAI writes them."""

    type: Literal["transcription"] = "transcription"
    audio: Audio = Audio()
    include: (
        list[Literal["item.input_audio_transcription.logprobs", "item.input_audio_transcription.coverage"]] | None
    ) = None

    def to_options(self, by_hand: EndpointRules, known: Sequence[str] = ()) -> LiveOptions:
        """The same for a stream. Raises InvalidField for too many or too long keywords.

        by_hand: rules without turn detection; the longest utterance is that of all rules. known: languages of the
        model.
        """
        given = self.audio.input
        asked = given.transcription or Transcription()
        vad = given.turns
        return LiveOptions(
            ENCODINGS[given.format.type],
            given.format.hz,
            vad.to_rules(by_hand.longest_ms) if vad else by_hand,
            CHUNK_RULES[asked.delay or "medium"],
            with_script(
                parse_phrases(asked.keywords or [], asked.prompt or "", param=f"{TRANSCRIPTION}.keywords"),
                parse_spoken(asked.language, asked.languages or (), known) if known else (),
                known,
            ),
        )

    @property
    def has_logprobs(self) -> bool:
        """Whether log-probabilities are included."""
        return LOGPROBS in (self.include or ())

    @property
    def has_coverage(self) -> bool:
        """Whether it is said how much of the speech has words."""
        return COVERAGE in (self.include or ())


def configure(before: Configuration, given: Mapping[str, Any], model: ServedModel) -> Configuration:
    """The settings with the given fields changed. Raises RequestError, naming the field.

    given: as OpenAI writes them, now or in its older events; what nobody gave stays unset in the result.
    """
    given_type = given.get("type", "transcription")
    if given_type != "transcription":
        raise UnsupportedField("session.type: only transcription sessions are served", param="session.type")
    merged = _merge(_merge(before.model_dump(exclude_unset=True), _from_older_fields(given)), given)
    try:
        after = Configuration.model_validate(merged)
    except ValidationError as exc:
        raise to_invalid_field(exc, "session", hidden=("server_vad", "semantic_vad")) from None
    asked = after.audio.input.transcription or Transcription()
    if asked.model:
        check_realtime_model(asked.model, model, param=f"{TRANSCRIPTION}.model")
    if asked.language:
        parse_language(asked.language, model.languages, param=f"{TRANSCRIPTION}.language")
    parse_languages(asked.languages or (), model.languages, param=f"{TRANSCRIPTION}.languages")
    parse_phrases(asked.keywords or [], asked.prompt or "", model.letters, param=f"{TRANSCRIPTION}.keywords")
    return after


def _merge(before: dict[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Merge objects key by key, except turn_detection and format, of which there are several kinds."""
    after = copy.copy(before)
    for name, value in given.items():
        kept = before.get(name)
        is_both = isinstance(value, Mapping) and isinstance(kept, dict) and name not in ("turn_detection", "format")
        after[name] = _merge(kept, value) if is_both and kept is not None else value
    return after


def _from_older_fields(given: Mapping[str, Any]) -> dict[str, Any]:
    """The flat fields of OpenAI's older sessions in the present form. Raises InvalidField."""
    changed: dict[str, Any] = {new: given[old] for old, new in OLDER_FIELDS.items() if old in given}
    if "input_audio_format" in given:
        kinds = {name: kind for kind, name in OLDER_NAMES.items()}
        asked = given["input_audio_format"]
        if not isinstance(asked, str) or asked not in kinds:
            raise InvalidField(
                f"session.input_audio_format: one of {', '.join(kinds)} is expected",
                param="session.input_audio_format",
            )
        changed["format"] = {"type": kinds[asked]}
    return {"audio": {"input": changed}} if changed else {}


def new_session_id() -> str:
    """A session's name."""
    return f"sess_{uuid.uuid4().hex}"


def render_session(configuration: Configuration, session_id: str, expires_at: int) -> dict[str, Any]:
    """A session as OpenAI describes it. expires_at: unix time."""
    described = configuration.model_dump()
    given = configuration.audio.input.format
    rate = {"rate": given.hz} if given.type == "audio/pcm" else {}
    turns = configuration.audio.input.turns
    described["audio"]["input"]["turn_detection"] = turns and turns.model_dump()
    described["audio"]["input"]["format"] = {"type": given.type, **rate}
    return {"id": session_id, "object": SESSION_OBJECT, "expires_at": expires_at, **described}


def render_older_session(configuration: Configuration, session_id: str, expires_at: int) -> dict[str, Any]:
    """A session as OpenAI's older events describe it. expires_at: unix time."""
    given = configuration.audio.input
    asked = given.transcription and given.transcription.model_dump(include=set(OLDER_TRANSCRIPTION_FIELDS))
    return {
        "id": session_id,
        "object": SESSION_OBJECT,
        "expires_at": expires_at,
        "input_audio_format": OLDER_NAMES[given.format.type],
        "input_audio_transcription": asked and {name: value or "" for name, value in asked.items()},
        "turn_detection": given.turns and given.turns.model_dump(exclude={"idle_timeout_ms"}),
        "input_audio_noise_reduction": given.noise_reduction and given.noise_reduction.model_dump(),
        "include": configuration.include,
    }
