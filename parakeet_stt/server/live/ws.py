"""Knows the messages of `/ws`: the original wrapper's, and what a client may ask for beyond them.

By itself a client sends int16 PCM, mono at 16 kHz, in binary frames of any length, and gets `{"status":"queued"}` when
an utterance is taken and `{"text":…}` when it is recognized. All else is asked for in the address or in a hello.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, field_validator

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import InvalidField, RequestError
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.server.files.form import LONGEST_KEYWORD, MOST_KEYWORDS, phrases
from parakeet_stt.server.live.connection import Outgoing
from parakeet_stt.server.live.live_vad import Encoding, is_rate
from parakeet_stt.server.live.stream import Live, LiveOptions
from parakeet_stt.streaming.session import Event, Failed, Final, Spoken, Started, StepRules, Stopped, TurnRules
from parakeet_stt.text.transcript import Word

USUAL = TurnRules()  # those of the original wrapper


def _separated(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


class Hello(BaseModel):
    """What a client asks for: query parameters, or a JSON object as its first message."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["hello"] = "hello"
    sample_rate: int = SAMPLE_RATE
    encoding: Encoding = "pcm_s16le"
    partials: bool = False
    words: bool = False
    language: str | None = None
    keywords: Annotated[list[str], BeforeValidator(_separated)] = []
    prompt: str = ""
    threshold: float | None = Field(default=None, gt=0, lt=1)
    silence_ms: int = Field(default=USUAL.silence_ms, ge=64, le=10_000)
    padding_ms: int = Field(default=USUAL.pad_ms, ge=0, le=2000)
    max_utterance_seconds: float = Field(default=USUAL.longest_ms / 1000, ge=2, le=60)

    @field_validator("sample_rate")
    @classmethod
    def _is_possible(cls, rate: int) -> int:
        if not is_rate(rate):
            raise ValueError("8000 to 48000 Hz are understood, except rates that share no large factor with 16000")
        return rate

    @field_validator("keywords")
    @classmethod
    def _are_few(cls, keywords: list[str]) -> list[str]:
        if len(keywords) > MOST_KEYWORDS or any(len(one) > LONGEST_KEYWORD for one in keywords):
            raise ValueError(f"at most {MOST_KEYWORDS} keywords of {LONGEST_KEYWORD} characters are listened for")
        return keywords

    def options(self, onset: float) -> LiveOptions:
        """What it means here. onset: the threshold unless it names one."""
        threshold = self.threshold or onset
        return LiveOptions(
            self.encoding,
            self.sample_rate,
            TurnRules(
                onset=threshold,
                offset=SpeechRules.offset_for(threshold),
                silence_ms=self.silence_ms,
                pad_ms=self.padding_ms,
                longest_ms=round(1000 * self.max_utterance_seconds),
            ),
            StepRules() if self.partials else StepRules(part=None),
            phrases(self.keywords, self.prompt),
        )


def hello_of(asked: Mapping[str, Any], languages: Sequence[str]) -> Hello:
    """A client's wishes. Raises InvalidField for the first that can't be met. languages: that the model knows."""
    try:
        hello = Hello.model_validate({name: value for name, value in asked.items() if name != "api_key"})
    except ValidationError as exc:
        problem = exc.errors(include_input=False)[0]
        name = ".".join(map(str, problem["loc"]))
        raise InvalidField(f"{name}: {problem['msg'].removeprefix('Value error, ')}", param=name) from None
    if hello.language and hello.language.lower().split("-")[0] not in languages:
        known = ", ".join(languages)
        raise InvalidField(f"language: {hello.language!r} is not known to this model: {known}", param="language")
    return hello


@dataclass(slots=True)
class _Growing:
    """An utterance whose words are still found. start: in seconds. stable: words that will not change."""

    start: float
    stable: list[str] = field(default_factory=list)


class WsProtocol:
    """One client of `/ws`; see `parakeet_stt.server.live.connection.LiveProtocol`."""

    def __init__(self, live: Live, hello: Hello, *, onset: float, languages: Sequence[str]) -> None:
        self.live = live
        self._hello = hello
        self._onset = onset
        self._languages = languages
        self._growing: dict[int, _Growing] = {}  # utterances that are not final

    def opening(self) -> Sequence[Outgoing]:
        """Nothing: the client speaks first."""
        return ()

    async def handle(self, message: str | bytes) -> Sequence[Outgoing] | None:
        """Sound, a hello, a commit or the end."""
        if isinstance(message, bytes):
            await self.live.hear(message)
            return ()
        try:
            asked = json.loads(message)
        except (ValueError, RecursionError):
            raise InvalidField("a text message is to be a JSON object", param=None) from None
        kind = asked.get("type") if isinstance(asked, dict) else None
        if kind == "hello":
            if self.live.heard_seconds:
                raise RequestError("type: a hello comes before any sound", param="type")
            self._hello = hello_of({**self._hello.model_dump(), **asked}, self._languages)
            self.live.change(self._hello.options(self._onset))
            return ({"type": "hello", **self._hello.model_dump(exclude={"type"})},)
        if kind == "commit":
            self.live.commit()
            return ()
        if kind == "end":
            return None
        raise InvalidField("type: hello, commit or end is expected", param="type")

    def told(self, event: Event) -> Sequence[Outgoing]:
        """Utterances that are taken, their text while it grows, and their text."""
        match event:
            case Started():
                self._growing[event.item] = _Growing(_seconds(event.at / SAMPLE_RATE))
            case Stopped():
                place = {"start": _seconds(event.start / SAMPLE_RATE), "end": _seconds(event.end / SAMPLE_RATE)}
                return ({"type": "queued", "status": "queued", "utterance": event.item, **place},)
            case Spoken():
                growing = self._growing[event.item]
                growing.stable += [word.text for word in event.stable]
                words = [*growing.stable, *(word.text for word in event.unstable)]
                if words:
                    text = {"text": " ".join(words), "stable": " ".join(growing.stable), "start": growing.start}
                    return ({"type": "partial", "utterance": event.item, **text},)
            case Final():
                del self._growing[event.item]
                body: dict[str, Any] = {
                    "type": "final",
                    "utterance": event.item,
                    "text": " ".join(word.text for word in event.words),
                    "start": _seconds(event.start / SAMPLE_RATE),
                    "end": _seconds(event.end / SAMPLE_RATE),
                }
                if self._hello.words:
                    body["words"] = [_word(word) for word in event.words]
                return (body,)
            case Failed():
                del self._growing[event.item]
                error = {"message": "The model failed on this utterance.", "code": "internal_error", "param": None}
                return ({"type": "error", "utterance": event.item, "error": error},)
        return ()

    def refused(self, error: RequestError) -> Outgoing:
        """In short."""
        return {"type": "error", "error": {"message": error.message, "code": error.code, "param": error.param}}


def _word(word: Word) -> Outgoing:
    return {"word": word.text, "start": _seconds(word.start), "end": _seconds(word.end)}


def _seconds(value: float) -> float:
    return round(value, 3)
