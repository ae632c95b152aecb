"""What the recognizer is asked to prefer: the phrases of a caller's keywords and prompt; and the script to write in."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Collection, Iterable, Iterator

# Sorted, without duplicates: equal requests are equal values. Before them may be a script, behind `_SCRIPT`: it is
# asked for, cached and compared with the phrases, and no phrase can look like one.
Phrases = tuple[str, ...]
NO_PHRASES: Phrases = ()
_SCRIPT = "\0"
_SCRIPTS = {"bg": "cyrillic", "ru": "cyrillic", "uk": "cyrillic", "el": "greek"}  # of languages; else latin

_WORD = re.compile(r"[^\W_]+(?:['’.\-][^\W_]+)*")
_SENTENCE_END = re.compile(r"[.?!…:]\s*$")
SHORTEST_DISTINCTIVE = 3  # characters


def normalize_phrases(phrases: Iterable[str]) -> Phrases:
    """Remove empty phrases, duplicates, extra spaces, and unpaired surrogates, which are no text.

    The typographic apostrophe becomes the plain one, which the models write.
    """
    whole = (phrase.encode(errors="ignore").decode().replace("’", "'").replace(_SCRIPT, "") for phrase in phrases)
    return tuple(sorted({" ".join(phrase.split()) for phrase in whole} - {""}))


def find_distinctive(prompt: str) -> Phrases:
    """The words of a prompt that boosting can help with: names, products, abbreviations, codes.

    These are the words of three characters or more with a capital letter or a digit. Excepted is the first word of a
    sentence that goes on in small letters, if only its first letter is a capital: there the capital means nothing.
    """
    return normalize_phrases(_find_distinctive(prompt))


def _find_distinctive(prompt: str) -> Iterator[str]:
    words = list(_WORD.finditer(prompt))
    ended = 0  # end of the word before
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


def spelling_variants(phrase: str) -> Phrases:
    """The phrase as given, in small letters, and as it would begin a sentence or a name."""
    small = phrase.lower()
    return normalize_phrases(
        {phrase, small, phrase[0].upper() + phrase[1:], small[0].upper() + small[1:], small.title()}
    )


def can_spell(phrase: str, letters: Collection[str]) -> bool:
    """Whether any spelling of a phrase has a piece for each of its letters. letters: pieces of one character.

    A tokenizer of SentencePiece can spell exactly what consists of such letters, once NFKC has normalized it.
    """
    return any(
        all(c in letters or c == " " for c in unicodedata.normalize("NFKC", spelling))
        for spelling in spelling_variants(phrase)
    )


def script_of(language: str) -> str:
    """The script that a language is written in: latin, cyrillic or greek. language: one of Parakeet's, ISO-639-1."""
    return _SCRIPTS.get(language, "latin")


def with_script(phrases: Phrases, spoken: Collection[str], known: Collection[str]) -> Phrases:
    """The phrases, and the script of the languages that are spoken, if it is one and the model knows others.

    spoken: languages that a caller names. known: of the model.
    """
    wanted = {script_of(language) for language in spoken}
    if len(wanted) != 1 or wanted == {script_of(language) for language in known}:
        return phrases
    return (_SCRIPT + wanted.pop(), *phrases)


def split_script(phrases: Phrases) -> tuple[Phrases, str | None]:
    """The phrases alone, and the script; None if there is none."""
    if phrases and phrases[0].startswith(_SCRIPT):
        return phrases[1:], phrases[0].removeprefix(_SCRIPT)
    return phrases, None
