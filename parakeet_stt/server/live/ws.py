"""The messages of `/ws`: the original wrapper's, and what a client may ask for beyond them.

By default a client sends int16 PCM, mono at 16 kHz, in binary messages of any length. It gets `{"status":"queued"}`
when an utterance has ended, and `{"text":…}` when it is decoded. For everything else a client asks in the address
or in a hello.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import InvalidField, RequestError
from parakeet_stt.server.live.connection import Outgoing
from parakeet_stt.server.live.pcm import Encoding, is_rate
from parakeet_stt.server.live.stream import LiveOptions, LiveStream
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.monitoring.logs import request_id
from parakeet_stt.server.options import (
    PaddingMs,
    SilenceMs,
    Threshold,
    parse_language,
    parse_phrases,
    parse_spoken,
    to_invalid_field,
)
from parakeet_stt.streaming.chunk_decoder import ChunkRules, Failed, Final, Partial
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.streaming.turns import Event, SpeechStarted, SpeechStopped
from parakeet_stt.text.openai_json import render_coverage, round_seconds
from parakeet_stt.text.phrases import with_script
from parakeet_stt.text.transcript import Word
from parakeet_stt.vad import offset_for

DEFAULTS = EndpointRules()
MAX_TEXT_CHARACTERS = 256 << 10  # of a message: ten times those that the longest hello has


def _split_commas(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Hello(BaseModel):
    """What a client asks for: query parameters, or a JSON object as its first message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["hello"] = "hello"
    sample_rate: int = SAMPLE_RATE
    encoding: Encoding = "pcm_s16le"
    partials: bool = False
    words: bool = False
    coverage: bool = False
    language: str | None = None
    keywords: Annotated[list[str], BeforeValidator(_split_commas)] = []
    prompt: str = ""
    threshold: Threshold | None = None
    silence_ms: SilenceMs = DEFAULTS.silence_ms
    padding_ms: PaddingMs = DEFAULTS.pad_ms
    max_utterance_seconds: float = Field(default=DEFAULTS.longest_ms / 1000, ge=2, le=60)

    @field_validator("sample_rate")
    @classmethod
    def _is_possible(cls, rate: int) -> int:
        if not is_rate(rate):
            raise ValueError("8000 to 48000 Hz are understood, except rates that share no large factor with 16000")
        return rate

    def to_options(self, onset: float, known: Sequence[str] = ()) -> LiveOptions:
        """The same for a stream. onset: the threshold unless the client names one. known: languages of the model.

        Raises InvalidField.
        """
        threshold = self.threshold or onset
        return LiveOptions(
            self.encoding,
            self.sample_rate,
            EndpointRules(
                onset=threshold,
                offset=offset_for(threshold),
                silence_ms=self.silence_ms,
                pad_ms=self.padding_ms,
                longest_ms=round(1000 * self.max_utterance_seconds),
            ),
            ChunkRules() if self.partials else ChunkRules(length=None),
            with_script(
                parse_phrases(self.keywords, self.prompt),
                parse_spoken(self.language, (), known) if known else (),
                known,
            ),
        )


def parse_hello(asked: Mapping[str, Any], model: ServedModel) -> Hello:
    """A client's hello. Raises RequestError for the first value that is not possible."""
    try:
        hello = Hello.model_validate({name: value for name, value in asked.items() if name != "api_key"})
    except ValidationError as exc:
        raise to_invalid_field(exc) from None
    if hello.language:
        parse_language(hello.language, model.languages)
    parse_phrases(hello.keywords, "", model.letters)
    return hello


@dataclass(slots=True)
class _OpenUtterance:
    """An utterance that is not final. start: in seconds. stable: words that will not change."""

    start: float
    stable: list[str] = field(default_factory=list)


class WsProtocol:
    """One client of `/ws`; see `connection.LiveProtocol`."""

    def __init__(self, stream: LiveStream, hello: Hello, *, onset: float, model: ServedModel) -> None:
        self.stream = stream
        self.session_id = request_id.get() or "-"
        self._hello = hello
        self._onset = onset
        self._model = model
        self._open: dict[int, _OpenUtterance] = {}

    def opening_messages(self) -> Sequence[Outgoing]:
        """None: the client speaks first."""
        return ()

    async def handle_message(self, message: str | bytes) -> Sequence[Outgoing] | None:
        """Audio, a hello, a commit or the end."""
        if isinstance(message, bytes):
            await self.stream.receive_audio(message)
            return ()
        if len(message) > MAX_TEXT_CHARACTERS:
            raise InvalidField(f"a text message may have at most {MAX_TEXT_CHARACTERS} characters", param=None)
        await self.stream.flush()
        try:
            asked = json.loads(message)
        except (ValueError, RecursionError):
            raise InvalidField("a text message is to be a JSON object", param=None) from None
        kind = asked.get("type") if isinstance(asked, dict) else None
        if kind == "hello":
            if self.stream.received_seconds:
                raise RequestError("type: a hello comes before any sound", param="type")
            self._hello = parse_hello({**self._hello.model_dump(), **asked}, self._model)
            self.stream.configure(self._hello.to_options(self._onset, self._model.languages))
            return ({"type": "hello", **self._hello.model_dump(exclude={"type"})},)
        if kind == "commit":
            await self.stream.commit()
            return ()
        if kind == "end":
            return None
        raise InvalidField("type: hello, commit or end is expected", param="type")

    def render_event(self, event: Event) -> Sequence[Outgoing]:
        """`queued`, `partial`, `final` and `error` messages."""
        match event:
            case SpeechStarted():
                self._open[event.item] = _OpenUtterance(round_seconds(event.at / SAMPLE_RATE))
            case SpeechStopped():
                return ({"type": "queued", "status": "queued", "utterance": event.item, **_times(event)},)
            case Partial():
                utterance = self._open[event.item]
                utterance.stable += [word.text for word in event.stable]
                words = [*utterance.stable, *(word.text for word in event.unstable)]
                if words:
                    texts = {"text": " ".join(words), "stable": " ".join(utterance.stable), "start": utterance.start}
                    return ({"type": "partial", "utterance": event.item, **texts},)
            case Final():
                del self._open[event.item]
                body: dict[str, Any] = {
                    "type": "final",
                    "utterance": event.item,
                    "text": " ".join(word.text for word in event.words),
                    **_times(event),
                }
                if self._hello.words:
                    body["words"] = [_word(word) for word in event.words]
                if self._hello.coverage and event.speech:
                    body["speech"] = render_coverage(event.speech)
                return (body,)
            case Failed():
                del self._open[event.item]
                error = {"message": "The model failed on this utterance.", "code": "internal_error", "param": None}
                return ({"type": "error", "utterance": event.item, "error": error},)
        return ()

    def render_error(self, error: RequestError) -> Outgoing:
        """An `error` message."""
        return {"type": "error", "error": {"message": error.message, "code": error.code, "param": error.param}}


def _times(event: SpeechStopped | Final) -> Outgoing:
    return {"start": round_seconds(event.start / SAMPLE_RATE), "end": round_seconds(event.end / SAMPLE_RATE)}


def _word(word: Word) -> Outgoing:
    return {"word": word.text, "start": round_seconds(word.start), "end": round_seconds(word.end)}
