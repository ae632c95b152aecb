"""How the routes that take a file are described in /openapi.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from typing_extensions import TypedDict

from parakeet_stt.server.files.form import GRANULARITIES, INCLUDABLE, ServerVad
from parakeet_stt.server.files.speakers import CHANNELS, MAX_KNOWN, REFERENCE_SECONDS
from parakeet_stt.server.options import MAX_KEYWORD_CHARACTERS, MAX_KEYWORDS
from parakeet_stt.text.diarized_json import DiarizedJson
from parakeet_stt.text.formats import TRANSCRIPTION_FORMATS, TRANSLATION_FORMATS, Format
from parakeet_stt.text.openai_json import Json, TranslationJson, VerboseJson, VerboseTranslation


class NemoTimestamps(TypedDict):
    """NeMo's own shape: for each word, segment and token its text, offsets in frames of 80 ms, and seconds."""

    word: list[dict[str, Any]]
    segment: list[dict[str, Any]]
    char: list[dict[str, Any]]


class SeedTranscription(TypedDict):
    """The answer of the original wrapper's `/transcribe`."""

    text: str
    timestamps: NemoTimestamps | None


_EVENTS = {  # the schema is that of one event
    "schema": {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}},
    "example": 'data: {"type": "transcript.text.delta", "delta": "If the food is good,"}\n\n'
    'data: {"type": "transcript.text.done", "text": "If the food is good,", "usage": …}\n\n',
}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _texts(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", **more}, "description": description}


def _content(example: Any) -> dict[str, Any]:
    """The media types of the formats; those of text with their own examples."""
    texts = {
        one.media_type: {"schema": {"type": "string"}, "example": one.example}
        for one in TRANSCRIPTION_FORMATS.values()
        if one.schema is None
    }
    return {"application/json": {"example": example}, **texts}


def _formats(formats: Mapping[str, Format]) -> dict[str, Any]:
    return {"type": "string", "enum": list(formats), "default": "json"}


def _body(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


_FILE = _text("flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm, and what else FFmpeg reads.", format="binary")
_MODEL = _text("The served model's name, or any of OpenAI's names for transcription models.", example="whisper-1")
_CHANNELS = {
    "type": "string", "enum": list(CHANNELS), "default": "mixed",
    "description": "separate: each channel is transcribed on its own, as one speaker. Not with stream.",
}  # fmt: skip
_SPEAKERS = {
    "type": "boolean", "default": False,
    "description": "Say who speaks, where a diarizer is served, in verbose_json, srt and vtt too.",
}  # fmt: skip
_TEMPERATURE = {
    "type": "number", "minimum": 0, "maximum": 1, "default": 0,
    "description": "Checked; decoding is greedy, so it makes no difference.",
}  # fmt: skip
_PROMPT = _text("Names, products and abbreviations in it are listened for; the rest of it makes no difference.")

TRANSCRIPTION: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {
            "model": Json | VerboseJson | DiarizedJson,
            "description": "The text. With stream=true, events: transcript.text.delta for each piece that is final, "
            "then transcript.text.done.",
            "content": {**_content(TRANSCRIPTION_FORMATS["json"].example), "text/event-stream": _EVENTS},
        }
    },
    "openapi_extra": _body(
        ["file", "model"],
        {
            "file": _FILE,
            "model": _MODEL,
            "language": _text("Which of the model's languages is spoken, in ISO 639-1.", example="en"),
            "languages[]": _texts("Which of the model's languages may be spoken."),
            "keywords[]": _texts(
                f"Words and phrases to listen for, at most {MAX_KEYWORDS}.", maxLength=MAX_KEYWORD_CHARACTERS
            )
            | {"maxItems": MAX_KEYWORDS},
            "prompt": _PROMPT,
            "response_format": _formats(TRANSCRIPTION_FORMATS),
            "temperature": _TEMPERATURE,
            "include[]": _texts(
                "logprobs: with response_format json, or verbose_json while streaming. coverage: with verbose_json, or "
                "in the last event of a stream.",
                enum=list(INCLUDABLE),
            ),
            "timestamp_granularities[]": _texts("With response_format verbose_json.", enum=list(GRANULARITIES)),
            "stream": {
                "type": "boolean",
                "default": False,
                "description": "With response_format json, text, verbose_json or diarized_json; the last two give the "
                "events times.",
            },
            "channels": _CHANNELS,
            "speakers": _SPEAKERS,
            "known_speaker_names[]": _texts("Names of speakers, with a reference each.") | {"maxItems": MAX_KNOWN},
            "known_speaker_references[]": _texts(
                f"Data URLs: {REFERENCE_SECONDS[0]} to {REFERENCE_SECONDS[1]} s of each of them, alone."
            )
            | {"maxItems": MAX_KNOWN},
            "chunking_strategy": {
                "description": "auto, or a JSON object: when sound counts as speech.",
                "anyOf": [{"type": "string", "enum": ["auto"]}, ServerVad.model_json_schema()],
            },
        },
    ),
}
TRANSLATION: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {
            "model": TranslationJson | VerboseTranslation,
            "description": "The text in English.",
            "content": _content(TRANSLATION_FORMATS["json"].example),
        }
    },
    "openapi_extra": _body(
        ["file", "model"],
        {
            "file": _FILE,
            "model": _MODEL,
            "prompt": _PROMPT,
            "response_format": _formats(TRANSLATION_FORMATS),
            "temperature": _TEMPERATURE,
        },
    ),
}
SEED: dict[str, Any] = {
    "response_model": None,
    "responses": {200: {"model": SeedTranscription, "description": "The text, and its timestamps if asked for."}},
    "openapi_extra": _body(
        ["file"],
        {
            "file": _FILE,
            "include_timestamps": {"type": "boolean", "default": False},
            "should_chunk": {"type": "boolean", "default": True},
            "channels": _CHANNELS,
            "speakers": _SPEAKERS,
        },
    ),
}
