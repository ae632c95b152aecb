"""Texts → words that can be compared: as they stand, plain, or as Whisper's English normalizer writes them."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

Normalizer = Callable[[str], list[str]]


def split_plain(text: str) -> list[str]:
    """The words in lower case, without punctuation."""
    return "".join(c for c in text.lower() if c.isalnum() or c == " ").split()


def split_english(text: str) -> list[str]:
    """The words as OpenAI's normalizer for English leaves them: numbers as digits, one spelling, no "um".

    The Open ASR Leaderboard counts the errors of such words. Source: Radford et al. 2022, appendix C.
    """
    return _english()(text).split()


@cache
def _english() -> Callable[[str], str]:
    from whisper_normalizer.english import EnglishTextNormalizer  # compiles its expressions: only where it is used

    normalize: Callable[[str], str] = EnglishTextNormalizer()
    return normalize


# What `--normalizer` takes.
NORMALIZERS: dict[str, Normalizer] = {"english": split_english, "plain": split_plain, "none": str.split}
