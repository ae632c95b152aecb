"""Knows the form fields of OpenAI's transcription request: which values are honoured, which refused, and how.

Does not know audio or what becomes of the request. Arrays come as `name`, `name[]`, or comma-free repeats of either.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from pydantic import TypeAdapter, ValidationError
from starlette.datastructures import FormData, UploadFile

from stt.errors import InvalidField, RequestError, UnknownModel, UnsupportedField

ResponseFormat = Literal["json", "text", "srt", "verbose_json", "vtt"]
FORMATS: tuple[str, ...] = get_args(ResponseFormat)
GRANULARITIES = ("word", "segment")
# What OpenAI's own clients send for their own models; whatever is loaded answers to these names too.
OPENAI_NAMES = frozenset(
    {"whisper-1", "gpt-transcribe", "gpt-4o-transcribe", "gpt-4o-mini-transcribe", "gpt-4o-transcribe-diarize"}
)
NOT_YET = {
    "stream": "streaming",
    "keywords": "phrase boosting",
    "known_speaker_names": "speaker recognition",
    "known_speaker_references": "speaker recognition",
}


@dataclass(frozen=True, slots=True)
class TranscriptionRequest:
    """A request that this server can honour."""

    file: UploadFile
    response_format: ResponseFormat
    granularities: frozenset[str]
    logprobs: bool
    language: str | None


def upload_of(form: FormData) -> UploadFile:
    """The `file` part.

    Raises RequestError if there is none.
    """
    file = form.get("file")
    if not isinstance(file, UploadFile):
        raise RequestError("file: an uploaded media file is required", param="file", code="missing_required_parameter")
    return file


def flag(form: FormData, name: str, *, default: bool) -> bool:
    """A yes-or-no field, as pydantic reads booleans.

    Raises InvalidField for anything else.
    """
    value = _one(form, name)
    if not value:
        return default
    try:
        return TypeAdapter(bool).validate_python(value)
    except ValidationError:
        raise InvalidField(f"{name}: true or false is expected, not {value!r}", param=name) from None


def parse(form: FormData, *, served: str, languages: tuple[str, ...]) -> TranscriptionRequest:
    """Check every field of the contract.

    Raises RequestError, naming the field, the value and what is supported.
    """
    _model(form, served)
    _language(form, languages)
    _temperature(form)
    for name, feature in NOT_YET.items():
        value = _values(form, name)
        if value and value not in (["false"], [""]):
            raise UnsupportedField(f"{name}: {feature} is not supported by this server yet", param=name)
    if (strategy := _one(form, "chunking_strategy")) not in (None, "", "auto", '"auto"') or any(
        key.startswith("chunking_strategy[") for key in form
    ):
        raise UnsupportedField(
            f'chunking_strategy: only "auto" is supported, not {strategy or "an object"}', param="chunking_strategy"
        )
    response_format = _one(form, "response_format") or "json"
    if response_format == "diarized_json":
        raise UnsupportedField("response_format: diarized_json needs a speaker model, and none is served here",
                               param="response_format")  # fmt: skip
    if response_format not in FORMATS:
        raise InvalidField(f"response_format: {response_format!r} is not one of {', '.join(FORMATS)}",
                           param="response_format")  # fmt: skip
    granularities = _choices(form, "timestamp_granularities", GRANULARITIES)
    if granularities and response_format != "verbose_json":
        raise InvalidField(
            "`response_format` must be `verbose_json` if `timestamp_granularities[]` is provided",
            param="timestamp_granularities",
        )
    include = _choices(form, "include", ("logprobs",))
    if include and response_format != "json":
        raise InvalidField("include: logprobs need response_format json", param="include")
    return TranscriptionRequest(
        file=upload_of(form),
        response_format=response_format,  # type: ignore[arg-type]  # one of FORMATS
        granularities=granularities or frozenset({"segment"}),
        logprobs=bool(include),
        language=(_one(form, "language") or "").lower() or None,
    )


def _values(form: FormData, name: str) -> list[str]:
    return [str(value) for key in (name, f"{name}[]") for value in form.getlist(key)]


def _one(form: FormData, name: str) -> str | None:
    values = _values(form, name)
    if len(values) > 1:
        raise InvalidField(f"{name}: one value is expected, not {len(values)}", param=name)
    return values[0] if values else None


def _choices(form: FormData, name: str, allowed: tuple[str, ...]) -> frozenset[str]:
    values = [value for value in _values(form, name) if value]
    for value in values:
        if value not in allowed:
            raise InvalidField(f"{name}: {value!r} is not one of {', '.join(allowed)}", param=name)
    return frozenset(values)


def _model(form: FormData, served: str) -> None:
    model = _one(form, "model")
    if not model:
        raise RequestError("model: a model name is required", param="model", code="missing_required_parameter")
    if model != served and model not in OPENAI_NAMES:
        raise UnknownModel(f"model: {model!r} is not served here; {served!r} is", param="model")


def _language(form: FormData, spoken: tuple[str, ...]) -> None:
    for name in ("language", "languages"):
        for language in filter(None, _values(form, name)):
            if language.lower() not in spoken:
                raise UnsupportedField(
                    f"{name}: {language!r} is not spoken by the served model; it knows {', '.join(spoken)}", param=name
                )


def _temperature(form: FormData) -> None:
    """Checked, and without effect: greedy decoding has nothing to sample."""
    value = _one(form, "temperature") or "0"
    try:
        allowed = 0 <= float(value) <= 1
    except ValueError:
        allowed = False
    if not allowed:
        raise InvalidField(f"temperature: a number from 0 to 1 is expected, not {value!r}", param="temperature")
