"""The form fields of requests with a file: how they are spelled, which values are accepted, and which are refused.

An array comes as `name`, `name[]` or `name[0]`, repeated, or as JSON; an object as `name[key]` or as JSON. An empty
field counts as left out. A field that the contract does not have is refused, since it would have no effect, unless
`foreign_fields.py` says what it means, or the operator wants it ignored.
"""

from __future__ import annotations

import json
import logging
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile

from parakeet_stt.errors import InvalidField, RequestError, UnsupportedField
from parakeet_stt.offline.transcription import TranscriptionOptions
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.server.files.foreign_fields import FOREIGN_FIELDS, Effect
from parakeet_stt.server.files.speakers import (
    KNOWN_NAMES,
    KNOWN_REFERENCES,
    check_speakers,
    parse_channels,
    parse_known,
)
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.options import (
    DIARIZING_MODEL,
    PaddingMs,
    SilenceMs,
    Threshold,
    check_model,
    parse_phrases,
    parse_spoken,
    to_invalid_field,
)
from parakeet_stt.text.formats import TRANSCRIPTION_FORMATS, TRANSLATION_FORMATS, Detail, Format
from parakeet_stt.text.phrases import Phrases, with_script
from parakeet_stt.vad import offset_for

logger = logging.getLogger(__name__)
UnknownFields = Literal["refuse", "ignore"]
GRANULARITIES = ("word", "segment")
INCLUDABLE = ("logprobs", "coverage")
TRANSLATION_FIELDS = ("file", "model", "prompt", "response_format", "temperature")
TRANSCRIPTION_FIELDS = (
    *TRANSLATION_FIELDS, "language", "languages", "keywords", "include", "timestamp_granularities", "stream",
    "chunking_strategy", KNOWN_NAMES, KNOWN_REFERENCES, "channels", "speakers",
)  # fmt: skip
TEXT_ONLY = Detail()
WHISPER = "whisper-1"  # the only model of OpenAI's that has formats with times, and none of its that streams
SEED_FIELDS = ("file", "include_timestamps", "should_chunk", "channels", "speakers")
NATIVE_FIELDS = ("audio", "language", "keywords", "prompt", "channels", "speakers")


class ServerVad(BaseModel):
    """The object form of `chunking_strategy`."""

    model_config = ConfigDict(extra="forbid")

    type: Literal["server_vad"]
    prefix_padding_ms: PaddingMs = 300
    silence_duration_ms: SilenceMs = 200
    threshold: Threshold = 0.5

    def to_rules(self) -> SpeechRules:
        """The same for the detector."""
        return SpeechRules(
            onset=self.threshold,
            offset=offset_for(self.threshold),
            min_silence_ms=self.silence_duration_ms,
            pad_ms=self.prefix_padding_ms,
        )


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """A valid request. format, detail: of the answer. stream: whether the answer is a stream of events."""

    file: UploadFile
    options: TranscriptionOptions
    format: Format
    detail: Detail = TEXT_ONLY
    stream: bool = False


@dataclass(frozen=True, slots=True)
class SeedRequest:
    """A valid request of the original wrapper's `/transcribe`."""

    file: UploadFile
    options: TranscriptionOptions
    include_timestamps: bool


@dataclass(frozen=True, slots=True)
class NativeRequest:
    """A valid request of BentoML's own client."""

    file: UploadFile
    options: TranscriptionOptions


class Fields:
    """The fields of a form, however they are spelled."""

    def __init__(
        self, form: FormData, known: Sequence[str], unknown: UnknownFields | None, *, file_name: str = "file"
    ) -> None:
        """unknown: None to ignore fields that are not known without a word.

        Raises RequestError for a field that is not known, unless it is to be ignored, and for a file among text.
        """
        self._form = form
        self._file_name = file_name
        self._values: dict[str, list[tuple[str | None, str]]] = defaultdict(list)  # (key in the brackets, text)
        for key, value in form.multi_items():
            name, inner = _split_key(key)
            if name not in known and (unknown is None or name not in FOREIGN_FIELDS):
                if unknown == "ignore":
                    logger.warning("the field %.100r is not known, and was ignored", name)
                if unknown != "refuse":
                    continue
                raise RequestError(
                    f"{name}: there is no such field; there are {', '.join(known)}",
                    param=name,
                    code="unknown_parameter",
                )
            if name == file_name:
                continue
            if not isinstance(value, str):
                raise InvalidField(f"{name}: text is expected, not a file", param=name)
            if value:
                self._values[name].append((inner, value))

    def file(self) -> UploadFile:
        """The upload. Raises RequestError if there is none, or more than one."""
        name = self._file_name
        files = [value for key, value in self._form.multi_items() if _split_key(key)[0] == name]
        if len(files) != 1 or not isinstance(files[0], UploadFile):
            raise RequestError(
                f"{name}: an uploaded media file is required" if len(files) < 2 else f"{name}: one is expected",
                param=name,
                code="missing_required_parameter" if len(files) < 2 else "invalid_value",
            )
        return files[0]

    def foreign_phrases(self) -> list[str]:
        """Keywords in fields of other servers. Raises UnsupportedField for what such a field asks and is not done."""
        found: list[str] = []
        for name, field in FOREIGN_FIELDS.items():
            if field.effect is Effect.KEYWORDS:
                found += [phrase for text in self.many(name) for phrase in map(str.strip, text.split(",")) if phrase]
            elif field.effect is Effect.OFF_ONLY and self.flag(name, default=False):
                raise UnsupportedField(f"{name}: {field.reason}", param=name)
        return found

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
        """A value as JSON, or a dict of the values in brackets; text that is no JSON stays text."""
        values = self._values[name]
        if any(inner for inner, _ in values):
            return {inner: text for inner, text in values}  # noqa: C416  # a repeated one: the last
        text = self.one(name)
        return None if text is None else text if _json(text) is None and text != "null" else _json(text)


def parse_transcription(
    form: FormData, model: ServedModel, *, unknown: UnknownFields = "refuse"
) -> TranscriptionRequest:
    """Check every field of a request for a transcription. unknown: what becomes of fields that are not known.

    Raises RequestError, naming the field, the value and what is supported.
    """
    fields = Fields(form, TRANSCRIPTION_FIELDS, unknown)
    named = _check_model(fields, model)
    _check_temperature(fields)
    chosen = _format(fields, TRANSCRIPTION_FORMATS)
    is_meant = named == DIARIZING_MODEL and chosen.shows_speakers and model.tells_speakers
    options = TranscriptionOptions(
        separate_channels=parse_channels(fields.one("channels")),
        speakers=chosen.needs_speakers or fields.flag("speakers", default=is_meant),
        known=parse_known(fields.many(KNOWN_NAMES), fields.many(KNOWN_REFERENCES)),
    )
    check_speakers(options, model, param="response_format" if chosen.needs_speakers else "speakers")
    stream = fields.flag("stream", default=False)
    is_verbose = chosen.name == "verbose_json"
    if stream and named == WHISPER and (is_verbose or not chosen.can_stream):
        stream = False  # OpenAI's whisper-1 streams nothing, and answers as if it had not been asked to
    if stream and options.separate_channels:
        raise InvalidField("stream: channels=separate is answered as a whole, not as a stream", param="stream")
    if stream and not chosen.can_stream:
        streamed = " or ".join(name for name, one in TRANSCRIPTION_FORMATS.items() if one.can_stream)
        raise InvalidField(f"stream: response_format must be {streamed}, not {chosen.name}", param="stream")
    granularities = fields.choices("timestamp_granularities", GRANULARITIES)
    if granularities and chosen.name != "verbose_json" and named == WHISPER:  # OpenAI's newer models take it
        raise InvalidField(
            "`response_format` must be `verbose_json` if `timestamp_granularities[]` is provided",
            param="timestamp_granularities",
        )
    include = fields.choices("include", INCLUDABLE)
    has_words = is_verbose or (stream and chosen.needs_speakers)
    if "logprobs" in include and chosen.name != "json" and not (stream and has_words):
        raise InvalidField(f"include: logprobs need response_format json, not {chosen.name}", param="include")
    if "coverage" in include and not stream and chosen.name != "verbose_json":
        raise InvalidField(
            f"include: coverage needs response_format verbose_json, or stream=true, not {chosen.name}", param="include"
        )
    spoken = parse_spoken(fields.one("language"), fields.many("languages"), model.languages)
    return TranscriptionRequest(
        file=fields.file(),
        options=replace(
            options,
            language=spoken[0] if len(spoken) == 1 else None,
            phrases=with_script(_phrases(fields, model), spoken, model.languages),
            rules=_chunking(fields),
            short_first=stream,
        ),
        format=chosen,
        detail=Detail(
            words=has_words and "word" in granularities,
            segments=is_verbose and (not granularities or "segment" in granularities),
            logprobs="logprobs" in include,
            coverage="coverage" in include,
            languages=len(model.languages) > 1,
        ),
        stream=stream,
    )


def parse_translation(form: FormData, model: ServedModel, *, unknown: UnknownFields = "refuse") -> TranscriptionRequest:
    """Check every field of a request for a translation to English; an English model can translate English only.

    Raises RequestError, naming the field, the value and what is supported.
    """
    fields = Fields(form, TRANSLATION_FIELDS, unknown)
    _check_model(fields, model)
    _check_temperature(fields)
    if model.languages != ("en",):
        raise UnsupportedField(
            f"model: {model.name!r} transcribes {len(model.languages)} languages and translates none; only a model of "
            "English answers here, with what is said in English",
            param="model",
        )
    return TranscriptionRequest(
        fields.file(), TranscriptionOptions("en", _phrases(fields, model)), _format(fields, TRANSLATION_FORMATS)
    )


def parse_seed(form: FormData, model: ServedModel) -> SeedRequest:
    """Check the fields of the original wrapper; others are ignored, as it ignored them. Raises RequestError."""
    fields = Fields(form, SEED_FIELDS, None)
    upload, is_cut = fields.file(), fields.flag("should_chunk", default=True)
    stamped = fields.flag("include_timestamps", default=False)
    options = TranscriptionOptions(
        is_cut=is_cut,
        separate_channels=parse_channels(fields.one("channels")),
        speakers=fields.flag("speakers", default=False),
    )
    check_speakers(options, model)
    return SeedRequest(upload, options, stamped)


def parse_native(form: FormData, model: ServedModel) -> NativeRequest:
    """Check the fields of BentoML's own client, which sends each value as JSON; others are ignored, as BentoML does.

    Raises RequestError; also for an address in place of the file, which BentoML would download.
    """
    fields = Fields(form, NATIVE_FIELDS, None, file_name="audio")
    language = _native_text(fields.one("language"), "language")
    keywords = [_native_text(one, "keywords") or "" for one in fields.many("keywords")]
    prompt = _native_text(fields.one("prompt"), "prompt")
    spoken = parse_spoken(language, (), model.languages)
    phrases = parse_phrases(keywords, prompt or "", model.letters)
    options = TranscriptionOptions(
        spoken[0] if spoken else None,
        with_script(phrases, spoken, model.languages),
        separate_channels=parse_channels(_native_text(fields.one("channels"), "channels")),
        speakers=fields.flag("speakers", default=False),
    )
    check_speakers(options, model)
    return NativeRequest(fields.file(), options)


def _native_text(value: str | None, name: str) -> str | None:
    """A text as BentoML's client sends it, or as it is."""
    if value is None or value == "null":
        return None
    parsed = _json(value)
    if parsed is not None and not isinstance(parsed, str):
        raise InvalidField(f"{name}: text is expected, not {value[:100]!r}", param=name)
    return value if parsed is None else parsed


def _split_key(key: str) -> tuple[str, str | None]:
    """The name of a field, and the key in brackets after it; None if there are no brackets."""
    match = re.fullmatch(r"([^\[\]]*)\[([^\[\]]*)\]", key)
    return (match[1], match[2]) if match else (key, None)


def _json(text: str) -> Any:
    try:
        return json.loads(text)
    except (ValueError, RecursionError):
        return None


def _format(fields: Fields, formats: Mapping[str, Format]) -> Format:
    value = fields.one("response_format") or "json"
    if value not in formats:
        raise InvalidField(f"response_format: {value!r} is not one of {', '.join(formats)}", param="response_format")
    return formats[value]


def _check_model(fields: Fields, model: ServedModel) -> str:
    name = fields.one("model")
    if not name:
        raise RequestError("model: a model name is required", param="model", code="missing_required_parameter")
    check_model(name, model)
    return name


def _check_temperature(fields: Fields) -> None:
    """Check it; it has no effect, since greedy decoding samples nothing."""
    value = fields.one("temperature") or "0"
    try:
        is_allowed = 0 <= float(value) <= 1
    except ValueError:
        is_allowed = False
    if not is_allowed:
        raise InvalidField(f"temperature: a number from 0 to 1 is expected, not {value!r}", param="temperature")


def _phrases(fields: Fields, model: ServedModel) -> Phrases:
    keywords = [*fields.many("keywords"), *fields.foreign_phrases()]
    return parse_phrases(keywords, fields.one("prompt") or "", model.letters)


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
        return ServerVad.model_validate(strategy).to_rules()
    except ValidationError as exc:
        raise to_invalid_field(exc, "chunking_strategy") from None
