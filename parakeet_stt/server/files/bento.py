"""Knows how BentoML's own client is answered. Does not know BentoML: service.py has the signature that it reads."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from parakeet_stt.offline.transcription import Options
from parakeet_stt.server.files import form as openai_form
from parakeet_stt.server.files.serving import Serving
from parakeet_stt.server.http.middleware import remember
from parakeet_stt.text import formats
from parakeet_stt.text.lazy_sequence import Lazy


async def transcribe(
    serving: Serving, audio: Path, language: str | None, keywords: Sequence[str], prompt: str
) -> dict[str, Any]:
    """OpenAI's verbose_json of a file, with words and segments.

    Raises what the HTTP routes do, and sees to it that it is answered as there.
    """
    try:
        options = Options(
            openai_form.language(language, (), serving.model.languages), openai_form.phrases(keywords, prompt)
        )
        with audio.open("rb") as file:
            recording = await serving.transcribe(file, options)
    except Exception as exc:
        remember(exc)
        raise
    body = formats.as_verbose_json(recording, words=True, segments=True)
    return {name: list(value) if isinstance(value, Lazy) else value for name, value in body.items()}
