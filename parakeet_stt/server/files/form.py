"""Knows the form fields of OpenAI's audio requests: which values are honoured, which refused, and how they are spelled.

Does not know audio or what becomes of a request. An array comes as `name`, `name[]` or `name[0]`, repeated, or as JSON;
an object as `name[key]` or as JSON. A field that is empty counts as left out; one that the contract does not have is
refused, since it would make no difference.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile

from parakeet_stt.errors import InvalidField, RequestError, UnknownModel, UnsupportedField
from parakeet_stt.offline.transcription import Options
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.text.phrases import Phrases, distinctive, normalized

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
FORMATS: tuple[ResponseFormat, ...] = get_args(ResponseFormat)
STREAMED_FORMATS = ("json", "text")
GRANULARITIES = ("word", "segment")
INCLUDABLE = ("logprobs",)
MOST_KEYWORDS, LONGEST_KEYWORD = 100, 100  # phrases, and characters of one
# What OpenAI's own clients send for their own models; whatever is loaded answers to these names too.
OPENAI_NAMES = frozenset(
    {"whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"}
)
TRANSLATION_FIELDS = ("file", "model", "prompt", "response_format", "temperature")
TRANSCRIPTION_FIELDS = (
    *TRANSLATION_FIELDS, "language", "languages", "keywords", "include", "timestamp_granularities", "stream",
    "chunking_strategy", "known_speaker_names", "known_speaker_references",
)  # fmt: skip


class ServerVad(BaseModel):
    """The object form of `chunking_strategy`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: int = Field(default=300, ge=0, le=1000)
    silence_duration_ms: int = Field(default=200, ge=32, le=10_000)
    threshold: float = Field(default=0.5, gt=0, lt=1)

    def rules(self) -> SpeechRules:
        """What it means here."""
        return SpeechRules(
            onset=self.threshold,
            offset=SpeechRules.offset_for(self.threshold),
            min_silence_ms=self.silence_duration_ms,
            pad_ms=self.prefix_padding_ms,
        )


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """A request that this server can honour."""

    file: UploadFile
    options: Options
    response_format: ResponseFormat
    granularities: frozenset[str] = frozenset({"segment"})
    logprobs: bool = False
    stream: bool = False


class Fields:
    """The fields of a form, whichever way they are spelled."""

    def __init__(self, form: FormData, known: Sequence[str], *, others: bool = False) -> None:
        """others: whether fields that are not known are ignored.

        Raises RequestError for a field that is not known, or that is a file where text is expected.
        """
        self._form = form
        self._values: dict[str, list[tuple[str | None, str]]] = defaultdict(list)  # (what is in the brackets, text)
        for key, value in form.multi_items():
            name, inner = _spelled(key)
            if name not in known:
                if others:
                    continue
                raise RequestError(
                    f"{name}: there is no such field; there are {', '.join(known)}",
                    param=name,
                    code="unknown_parameter",
                )
            if name == "file":
                continue
            if not isinstance(value, str):
                raise InvalidField(f"{name}: text is expected, not a file", param=name)
            if value:
                self._values[name].append((inner, value))

    def file(self) -> UploadFile:
        """The upload. Raises RequestError if there is none, or more than one."""
        files = [value for key, value in self._form.multi_items() if _spelled(key)[0] == "file"]
        if len(files) != 1 or not isinstance(files[0], UploadFile):
            raise RequestError(
                "file: an uploaded media file is required" if len(files) < 2 else "file: one is expected",
                param="file",
                code="missing_required_parameter" if len(files) < 2 else "invalid_value",
            )
        return files[0]

    def one(self, name: str) -> str | None:
        """The only value; None if it is left out."""
        values = self._values[name]
        if len(values) > 1 or any(inner is not None for inner, _ in values):
            raise InvalidField(f"{name}: one value is expected", param=name)
        return values[0][1] if values else None

    def many(self, name: str) -> list[str]:
        """All values of an array."""
        found: list[str] = []
        for inner, text in self._values[name]:
            if inner and not inner.isdecimal():
                raise InvalidField(f"{name}: an array is expected, not a field {inner!r} of it", param=name)
            parsed = _json(text) if text.startswith("[") else None
            items = parsed if isinstance(parsed, list) else [text]
            if not all(isinstance(item, str) for item in items):
                raise InvalidField(f"{name}: an array of text is expected, not {text[:100]!r}", param=name)
            found += items
        return found

    def choices(self, name: str, allowed: Sequence[str]) -> frozenset[str]:
        """All values of an array of names."""
        values = self.many(name)
        for value in values:
            if value not in allowed:
                raise InvalidField(f"{name}: {value!r} is not one of {', '.join(allowed)}", param=name)
        return frozenset(values)

    def flag(self, name: str, *, default: bool) -> bool:
        """A yes-or-no value, as pydantic reads booleans; null is the default."""
        value = self.one(name)
        if value in (None, "null"):
            return default
        try:
            return TypeAdapter(bool).validate_python(value)
        except ValidationError:
            raise InvalidField(f"{name}: true or false is expected, not {value!r}", param=name) from None

    def object(self, name: str) -> Any:
        """What JSON says, or a dict of the values in brackets; a word that is no JSON is itself."""
        values = self._values[name]
        if any(inner for inner, _ in values):
            return {inner: text for inner, text in values}  # noqa: C416  # a repeated one: the last
        text = self.one(name)
        return None if text is None else text if _json(text) is None and text != "null" else _json(text)


def parse(form: FormData, *, served: str, languages: tuple[str, ...]) -> TranscriptionRequest:
    """Check every field of a request for a transcription.

    Raises RequestError, naming the field, the value and what is supported.
    """
    fields = Fields(form, TRANSCRIPTION_FIELDS)
    _model(fields, served)
    _temperature(fields)
    response_format = _response_format(fields)
    for name in ("known_speaker_names", "known_speaker_references"):
        if fields.many(name):
            raise UnsupportedField(f"{name}: response_format diarized_json needs a speaker model, and none is served",
                                   param=name)  # fmt: skip
    stream = fields.flag("stream", default=False)
    if stream and response_format not in STREAMED_FORMATS:
        raise InvalidField(
            f"stream: response_format must be {' or '.join(STREAMED_FORMATS)}, not {response_format}", param="stream"
        )
    granularities = fields.choices("timestamp_granularities", GRANULARITIES)
    if granularities and response_format != "verbose_json":
        raise InvalidField(
            "`response_format` must be `verbose_json` if `timestamp_granularities[]` is provided",
            param="timestamp_granularities",
        )
    include = fields.choices("include", INCLUDABLE)
    if include and response_format != "json":
        raise InvalidField(f"include: logprobs need response_format json, not {response_format}", param="include")
    return TranscriptionRequest(
        file=fields.file(),
        options=Options(
            language=language(fields.one("language"), fields.many("languages"), languages),
            phrases=_wanted(fields),
            rules=_chunking(fields),
            soon=stream,
        ),
        response_format=response_format,
        granularities=granularities or frozenset({"segment"}),
        logprobs=bool(include),
        stream=stream,
    )


def parse_translation(form: FormData, *, served: str, languages: tuple[str, ...]) -> TranscriptionRequest:
    """Check every field of a request for a translation to English, which an English model can only do of English.

    Raises RequestError, naming the field, the value and what is supported.
    """
    fields = Fields(form, TRANSLATION_FIELDS)
    _model(fields, served)
    _temperature(fields)
    if languages != ("en",):
        raise UnsupportedField(
            f"model: {served!r} transcribes {len(languages)} languages and translates none; only a model of English "
            "answers here, with what is said in English",
            param="model",
        )
    return TranscriptionRequest(
        file=fields.file(),
        options=Options("en", _wanted(fields)),
        response_format=_response_format(fields),
    )


def _spelled(key: str) -> tuple[str, str | None]:
    """The name of a field, and what is in the brackets after it; None if there are none."""
    match = re.fullmatch(r"([^\[\]]*)\[([^\[\]]*)\]", key)
    return (match[1], match[2]) if match else (key, None)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _response_format(fields: Fields) -> ResponseFormat:
    value = fields.one("response_format") or "json"
    if value == "diarized_json":
        raise UnsupportedField("response_format: diarized_json needs a speaker model, and none is served here",
                               param="response_format")  # fmt: skip
    for known in FORMATS:
        if value == known:
            return known
    raise InvalidField(f"response_format: {value!r} is not one of {', '.join(FORMATS)}", param="response_format")


def _model(fields: Fields, served: str) -> None:
    model = fields.one("model")
    if not model:
        raise RequestError("model: a model name is required", param="model", code="missing_required_parameter")
    if model != served and model not in OPENAI_NAMES:
        raise UnknownModel(f"model: {model!r} is not served here; {served!r} is", param="model")


def language(single: str | None, several: Sequence[str], spoken: tuple[str, ...]) -> str | None:
    """The one that is asked for, or the first of several; None if none is.

    Raises UnsupportedField for one that the model does not speak.
    """
    for name, values in (("language", [single] if single else []), ("languages", several)):
        for value in values:
            if value.lower() not in spoken:
                raise UnsupportedField(
                    f"{name}: {value!r} is not spoken by the served model; it knows {', '.join(spoken)}", param=name
                )
    return next((value.lower() for value in (single, *several) if value), None)


def _temperature(fields: Fields) -> None:
    """Checked, and without effect: greedy decoding has nothing to sample."""
    value = fields.one("temperature") or "0"
    try:
        allowed = 0 <= float(value) <= 1
    except ValueError:
        allowed = False
    if not allowed:
        raise InvalidField(f"temperature: a number from 0 to 1 is expected, not {value!r}", param="temperature")


def phrases(keywords: Sequence[str], prompt: str) -> Phrases:
    """What is to be listened for. Raises InvalidField for too many keywords, or too long ones."""
    if len(keywords) > MOST_KEYWORDS:
        raise InvalidField(f"keywords: at most {MOST_KEYWORDS}, not {len(keywords)}", param="keywords")
    for keyword in keywords:
        if len(keyword) > LONGEST_KEYWORD:
            raise InvalidField(
                f"keywords: at most {LONGEST_KEYWORD} characters, not {len(keyword)} as {keyword[:20]!r}… has",
                param="keywords",
            )
    named = [word for word in distinctive(prompt) if len(word) <= LONGEST_KEYWORD]
    return normalized([*keywords, *named[: MOST_KEYWORDS - len(keywords)]])


def _wanted(fields: Fields) -> Phrases:
    return phrases(fields.many("keywords"), fields.one("prompt") or "")


def _chunking(fields: Fields) -> SpeechRules | None:
    strategy = fields.object("chunking_strategy")
    if strategy in (None, "auto"):
        return None
    if not isinstance(strategy, dict):
        raise InvalidField(
            f'chunking_strategy: "auto" or an object of type server_vad is expected, not {strategy!r}',
            param="chunking_strategy",
        )
    try:
        return ServerVad.model_validate(strategy).rules()
    except ValidationError as exc:
        problem = exc.errors(include_url=False)[0]
        name = ".".join(["chunking_strategy", *map(str, problem["loc"])])
        raise InvalidField(f"{name}: {problem['msg']}", param=name) from None
