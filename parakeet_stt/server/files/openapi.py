"""Knows how the routes are described in /openapi.json and on /docs. Does not know how they are served."""

from __future__ import annotations

from importlib.resources import files
from typing import Any, Literal

from fastapi.openapi.docs import get_swagger_ui_html
from fastapi.responses import HTMLResponse, Response
from typing_extensions import TypedDict

from parakeet_stt.server.files.form import FORMATS, GRANULARITIES, INCLUDABLE, LONGEST_KEYWORD, MOST_KEYWORDS, ServerVad
from parakeet_stt.server.http.errors import ErrorBody
from parakeet_stt.text.formats import Json, VerboseJson, VerboseTranslation

TITLE = "Parakeet speech-to-text"
DESCRIPTION = "OpenAI's audio API, answered by a model of the Parakeet-TDT family on this machine."
# Swagger UI's files as BentoML carries them for its own page: nothing is fetched from elsewhere.
ASSETS = {"swagger-ui-bundle.js": "text/javascript", "swagger-ui.css": "text/css"}


class Model(TypedDict):
    """A model, as OpenAI describes one. created: unix time."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class Models(TypedDict):
    """All models that are served: one."""

    object: Literal["list"]
    data: list[Model]


class NemoTimestamps(TypedDict):
    """NeMo's own shape: for each word, segment and token its text, offsets in frames of 80 ms, and seconds."""

    word: list[dict[str, Any]]
    segment: list[dict[str, Any]]
    char: list[dict[str, Any]]


class SeedTranscription(TypedDict):
    """What the original wrapper's `/transcribe` answers."""

    text: str
    timestamps: NemoTimestamps | None


class TranslationJson(TypedDict):
    """OpenAI's `json` of a translation."""

    text: str


SAID = "If the food is good, everyone will bring the first question."
ERROR_EXAMPLE = {
    "error": {
        "message": "response_format: 'xml' is not one of json, text, srt, verbose_json, vtt",
        "type": "invalid_request_error",
        "param": "response_format",
        "code": "invalid_value",
    }
}
ERRORS: dict[int | str, dict[str, Any]] = {
    "4XX": {
        "model": ErrorBody,
        "description": "The request can't be served as it is; 429 says in `retry-after` when to come again.",
        "content": {"application/json": {"example": ERROR_EXAMPLE}},
    },
    "5XX": {"model": ErrorBody, "description": "The server's own failure; 503 if it took too long."},
}
TEXTS = {
    "text/plain": {"schema": {"type": "string"}, "example": SAID + "\n"},
    "application/x-subrip": {
        "schema": {"type": "string"},
        "example": f"1\n00:00:00,080 --> 00:00:03,120\n{SAID}\n\n",
    },
    "text/vtt": {
        "schema": {"type": "string"},
        "example": f"WEBVTT\n\n00:00:00.080 --> 00:00:03.120\n{SAID}\n\n",
    },
}
EVENTS = {  # the schema is that of one event
    "schema": {"type": "object", "required": ["data"], "properties": {"data": {"type": "string"}}},
    "example": 'data: {"type": "transcript.text.delta", "delta": "If the food is good,"}\n\n'
    'data: {"type": "transcript.text.done", "text": "If the food is good,", "usage": …}\n\n',
}


def _text(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "string", "description": description, **more}


def _texts(description: str, **more: Any) -> dict[str, Any]:
    return {"type": "array", "items": {"type": "string", **more}, "description": description}


FILE = _text("flac, mp3, mp4, mpeg, mpga, m4a, ogg, wav or webm, and what else FFmpeg reads.", format="binary")
MODEL = _text("The served model's name, or any of OpenAI's names for transcription models.", example="whisper-1")
FORMAT = {"type": "string", "enum": list(FORMATS), "default": "json"}
TEMPERATURE = {
    "type": "number", "minimum": 0, "maximum": 1, "default": 0,
    "description": "Checked; decoding is greedy, so it makes no difference.",
}  # fmt: skip
PROMPT = _text("Names, products and abbreviations in it are listened for; the rest of it makes no difference.")


def _body(required: list[str], properties: dict[str, Any]) -> dict[str, Any]:
    schema = {"type": "object", "required": required, "properties": properties, "additionalProperties": False}
    return {"requestBody": {"required": True, "content": {"multipart/form-data": {"schema": schema}}}}


TRANSCRIPTION: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {
            "model": Json | VerboseJson,
            "description": "The text. With stream=true, events: transcript.text.delta for each piece that is final, "
            "then transcript.text.done.",
            "content": {
                "application/json": {"example": {"text": SAID, "usage": {
                    "type": "tokens", "input_tokens": 39, "output_tokens": 16, "total_tokens": 55,
                    "input_token_details": {"text_tokens": 0, "audio_tokens": 39},
                }}},
                **TEXTS,
                "text/event-stream": EVENTS,
            },
        }
    },
    "openapi_extra": _body(
        ["file", "model"],
        {
            "file": FILE,
            "model": MODEL,
            "language": _text("Which of the model's languages is spoken, in ISO 639-1.", example="en"),
            "languages[]": _texts("Which of the model's languages may be spoken."),
            "keywords[]": _texts(
                f"Words and phrases to listen for, at most {MOST_KEYWORDS}.", maxLength=LONGEST_KEYWORD
            ) | {"maxItems": MOST_KEYWORDS},
            "prompt": PROMPT,
            "response_format": FORMAT,
            "temperature": TEMPERATURE,
            "include[]": _texts("With response_format json.", enum=list(INCLUDABLE)),
            "timestamp_granularities[]": _texts("With response_format verbose_json.", enum=list(GRANULARITIES)),
            "stream": {"type": "boolean", "default": False, "description": "With response_format json or text."},
            "chunking_strategy": {
                "description": "auto, or a JSON object: when sound counts as speech.",
                "anyOf": [{"type": "string", "enum": ["auto"]}, ServerVad.model_json_schema()],
            },
        },
    ),
}  # fmt: skip
TRANSLATION: dict[str, Any] = {
    "response_model": None,
    "responses": {
        200: {
            "model": TranslationJson | VerboseTranslation,
            "description": "The text in English.",
            "content": {"application/json": {"example": {"text": SAID}}, **TEXTS},
        }
    },
    "openapi_extra": _body(
        ["file", "model"],
        {"file": FILE, "model": MODEL, "prompt": PROMPT, "response_format": FORMAT, "temperature": TEMPERATURE},
    ),
}
SEED: dict[str, Any] = {
    "response_model": None,
    "responses": {200: {"model": SeedTranscription, "description": "The text, and its timestamps if asked for."}},
    "openapi_extra": _body(
        ["file"],
        {
            "file": FILE,
            "include_timestamps": {"type": "boolean", "default": False},
            "should_chunk": {"type": "boolean", "default": True},
        },
    ),
}


def page() -> HTMLResponse:
    """The routes, to read and to try."""
    first, second = (f"/docs/{name}" for name in ASSETS)
    return get_swagger_ui_html(
        openapi_url="/openapi.json",
        title=TITLE,
        swagger_js_url=first,
        swagger_css_url=second,
        swagger_favicon_url="data:,",
    )


def asset(name: str) -> Response:
    """One of `ASSETS`."""
    content = files("bentoml").joinpath("_internal", "server", "static_content", name).read_bytes()
    return Response(content, media_type=ASSETS[name], headers={"cache-control": "max-age=86400"})
