"""Tells which of the model's languages a text is in, for a model of several whose caller named none."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from functools import cached_property
from typing import Any

CHARACTERS = 2000  # of a text, from its beginning; more says nothing new, and takes 10 ms for each thousand
CONFIDENCE = 0.5  # of the detector; below it the language is not known. "No." and "Da." have less than 0.1


class LanguageDetector:
    """py3langid, restricted to some languages. Loads at the first text: half a second and 80 MB."""

    def __init__(self, languages: Sequence[str]) -> None:
        """languages: ISO-639-1."""
        self._languages = languages
        self._lock = threading.Lock()

    def detect(self, text: str) -> str | None:
        """The language of a text; None if the text does not show it. Any thread may call."""
        if not text:
            return None
        with self._lock:
            identifier = self._identifier
        language, confidence = identifier.classify(text[:CHARACTERS])
        return str(language) if confidence >= CONFIDENCE else None

    @cached_property
    def _identifier(self) -> Any:
        from py3langid.langid import MODEL_FILE, LanguageIdentifier  # type: ignore[import-untyped]

        identifier = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
        identifier.set_languages(self._languages)
        return identifier
