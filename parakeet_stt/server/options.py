"""What every kind of request may ask, checked in one place: model names, languages, keywords, speech detection.

Files, `/ws` and `/v1/realtime` each parse their own messages and check the values here.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from contextlib import suppress
from typing import Annotated, Any

from pydantic import Field, ValidationError

from parakeet_stt.errors import InvalidField, UnknownModel, UnsupportedField
from parakeet_stt.server.model import ServedModel
from parakeet_stt.text.phrases import Phrases, can_spell, find_distinctive, normalize_phrases

# What OpenAI's clients send for OpenAI's models (`AudioModel` of its client, and those of sessions); the served model
# answers to these names too.
DIARIZING_MODEL = "gpt-4o-transcribe-diarize"
MODEL_NAMES = frozenset(
    {
        "whisper-1",
        "gpt-transcribe",
        "gpt-4o-transcribe",
        "gpt-4o-mini-transcribe",
        "gpt-4o-mini-transcribe-2025-12-15",
        DIARIZING_MODEL,
        "gpt-realtime-whisper",
        "gpt-live-transcribe",
    }
)
# What they name when they connect, to transcribe with a session of the conversation type: it makes no difference.
CONVERSATION_MODEL_NAMES = frozenset({"gpt-realtime", "gpt-realtime-mini", "gpt-4o-realtime-preview"})
MAX_KEYWORDS, MAX_KEYWORD_CHARACTERS = 100, 100
MAX_DEPTH = 16  # of JSON; a session has 5
MAX_PROMPT_CHARACTERS = 20_000  # ten times as many as 224 tokens, of which OpenAI's whisper-1 takes notice, ever have

Threshold = Annotated[float, Field(gt=0, lt=1)]  # speech probability
PaddingMs = Annotated[int, Field(ge=0, le=2000)]
SilenceMs = Annotated[int, Field(ge=32, le=10_000)]  # at least one window of the detector


def check_model(name: str, model: ServedModel, *, param: str = "model") -> None:
    """Raise UnknownModel unless this is the served model's name, one of OpenAI's, or one that the operator has set."""
    if name != model.name and name not in MODEL_NAMES and name not in model.aliases:
        raise UnknownModel(f"{param}: {name!r} is not served here; {model.name!r} is", param=param)


def check_realtime_model(name: str, model: ServedModel, *, param: str = "model") -> None:
    """As `check_model`, for sockets: UnsupportedField for the model that tells speakers apart."""
    if name == DIARIZING_MODEL:
        raise UnsupportedField(f"{param}: {name!r} is for files; sockets do not tell who speaks", param=param)
    check_model(name, model, param=param)


def parse_language(tag: str, known: Sequence[str], *, param: str = "language") -> str:
    """The language that a tag such as `en`, `EN` or `en-US` begins with. Raises UnsupportedField if it is not known."""
    language = re.split("[-_]", tag.strip().lower(), maxsplit=1)[0]
    if language not in known:
        raise UnsupportedField(
            f"{param}: {tag!r} is not spoken by the served model; it knows {', '.join(known)}", param=param
        )
    return language


def parse_languages(tags: Sequence[str], known: Sequence[str], *, param: str = "languages") -> list[str]:
    """Those languages of the tags that are known. Raises UnsupportedField if there are tags and none is."""
    found = []
    for tag in tags:
        with suppress(UnsupportedField):
            found.append(parse_language(tag, known, param=param))
    if tags and not found:
        raise UnsupportedField(
            f"{param}: none of {', '.join(map(repr, tags))} is spoken by the served model; it knows {', '.join(known)}",
            param=param,
        )
    return found


def parse_spoken(single: str | None, several: Sequence[str], known: Sequence[str]) -> list[str]:
    """The languages that a caller names, each once; none if that is left to the model. Raises UnsupportedField."""
    found = [parse_language(single, known)] if single else []
    return list(dict.fromkeys([*found, *parse_languages(several, known)]))


def parse_phrases(
    keywords: Sequence[str], prompt: str, letters: Collection[str] = (), *, param: str = "keywords"
) -> Phrases:
    """The phrases to prefer.

    Raises InvalidField for too many keywords, too long ones, ones that can't be written, or a too long prompt.
    letters: that the model can write; empty if that is not known. Words of the prompt with others are left out.
    param: of the keywords; the prompt is beside them.
    """
    if len(prompt) > MAX_PROMPT_CHARACTERS:
        raise InvalidField(
            f"prompt: at most {MAX_PROMPT_CHARACTERS} characters, not {len(prompt)}",
            param=param.removesuffix("keywords") + "prompt",
        )
    if len(keywords) > MAX_KEYWORDS:
        raise InvalidField(f"{param}: at most {MAX_KEYWORDS}, not {len(keywords)}", param=param)
    for keyword in keywords:
        if len(keyword) > MAX_KEYWORD_CHARACTERS:
            raise InvalidField(
                f"{param}: at most {MAX_KEYWORD_CHARACTERS} characters, not {len(keyword)} as {keyword[:20]!r}… has",
                param=param,
            )
    wanted = normalize_phrases(keywords)
    for keyword in wanted:
        if letters and not can_spell(keyword, letters):
            raise InvalidField(f"{param}: the served model has no letters to write {keyword!r} with", param=param)
    named = [
        word
        for word in find_distinctive(prompt)
        if len(word) <= MAX_KEYWORD_CHARACTERS and (not letters or can_spell(word, letters))
    ]
    return normalize_phrases([*wanted, *named[: MAX_KEYWORDS - len(keywords)]])


def check_json(value: Any, *, param: str, depth: int = 0) -> None:
    """Raise InvalidField for a value of JSON that can't be written again: too deep, or with unpaired surrogates."""
    if depth > MAX_DEPTH:
        raise InvalidField(f"{param}: at most {MAX_DEPTH} levels of arrays and objects", param=param)
    if isinstance(value, str):
        if any("\ud800" <= character <= "\udfff" for character in value):
            raise InvalidField(f"{param}: text with half a character in it: {value[:100]!r}", param=param)
    elif isinstance(value, dict):
        for name, item in value.items():
            check_json(name, param=param)
            check_json(item, param=param, depth=depth + 1)
    elif isinstance(value, list):
        for item in value:
            check_json(item, param=param, depth=depth + 1)


def to_invalid_field(exc: ValidationError, *path: str, hidden: Collection[str] = ()) -> InvalidField:
    """The first problem of a pydantic model as our own error. path: of the model. hidden: parts of places to leave out.

    pydantic puts the tag of a tagged union into the place of a field, which callers do not have in their messages.
    """
    problem = exc.errors(include_input=False, include_url=False)[0]
    name = ".".join([*path, *(str(part) for part in problem["loc"] if part not in hidden)])
    return InvalidField(f"{name}: {problem['msg'].removeprefix('Value error, ')}", param=name)
