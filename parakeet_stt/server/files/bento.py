"""Answers BentoML's own client. service.py has the signature that BentoML reads."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from parakeet_stt.offline.transcription import TranscriptionOptions
from parakeet_stt.server.files.speakers import check_speakers, parse_channels
from parakeet_stt.server.files.transcriber import FileTranscriber
from parakeet_stt.server.http.middleware import set_error
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.options import parse_language, parse_phrases
from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.openai_json import render_verbose_json


@dataclass(frozen=True, slots=True)
class Asked:
    """What BentoML's client asks, as the fields of OpenAI's form of the same names."""

    language: str | None
    keywords: Sequence[str]
    prompt: str
    speakers: bool
    channels: str


async def transcribe(transcriber: FileTranscriber, model: ServedModel, audio: Path, asked: Asked) -> dict[str, Any]:
    """OpenAI's verbose_json of a file, with words and segments. Raises as the HTTP routes do, with the same answers."""
    try:
        options = TranscriptionOptions(
            language=parse_language(asked.language, model.languages) if asked.language else None,
            phrases=parse_phrases(asked.keywords, asked.prompt),
            separate_channels=parse_channels(asked.channels),
            speakers=asked.speakers,
        )
        check_speakers(options, model)
        with audio.open("rb") as file:
            recording = await transcriber.transcribe(file, options)
    except Exception as exc:
        set_error(exc)
        raise
    body = render_verbose_json(recording, words=True, segments=True)
    return {name: list(value) if isinstance(value, LazySequence) else value for name, value in body.items()}
