"""Knows what a caller's keywords and prompt ask the recognizer to listen for. Does not know the recognizer."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

Phrases = tuple[str, ...]  # sorted and different, so that equal wishes are equal values
NONE: Phrases = ()

_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.?!…:]\s*$")
SHORTEST_DISTINCTIVE = 3  # characters


def normalized(phrases: Iterable[str]) -> Phrases:
    """Without empty ones, doubled ones, spaces that mean nothing, and halves of characters, which are no text."""
    whole = (phrase.encode(errors="ignore").decode() for phrase in phrases)
    return tuple(sorted({" ".join(phrase.split()) for phrase in whole} - {""}))


def distinctive(prompt: str) -> Phrases:
    """The words of a prompt that are worth listening for: names, products, abbreviations, codes.

    These are its words of three characters or more with a capital letter or a digit in them, except the first word of a
    sentence that goes on in small letters, if only its first letter is a capital: that says nothing about it.
    """
    return normalized(_distinctive(prompt))


def _distinctive(prompt: str) -> Iterator[str]:
    words = list(_WORD.finditer(prompt))
    ended = 0  # the word before
    for index, match in enumerate(words):
        word, gap, ended = match.group(), prompt[ended : match.start()], match.end()
        if len(word) < SHORTEST_DISTINCTIVE or not any(c.isupper() or c.isdigit() for c in word):
            continue
        begins = (index == 0 and not gap.strip()) or bool(_SENTENCE_END.search(gap))
        following = words[index + 1] if index + 1 < len(words) else None
        goes_on = following and following.group()[0].islower() and prompt[match.end() : following.start()].isspace()
        if begins and goes_on and not any(c.isupper() or c.isdigit() for c in word[1:]):
            continue
        yield word


def spellings(phrase: str) -> Phrases:
    """The phrase as it may be written: as given, in small letters, and as it would begin a sentence or a name."""
    small = phrase.lower()
    return normalized({phrase, small, phrase[0].upper() + phrase[1:], small[0].upper() + small[1:], small.title()})
