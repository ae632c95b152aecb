"""Joins tokens into words, and words into segments."""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Sequence
from functools import lru_cache

import sentencex  # type: ignore[import-untyped]

from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.transcript import Segment, Token, Word

WORD_START = "▁"  # SentencePiece's mark for "a space was here"
UNKNOWN = "<unk>"  # the piece of what the tokenizer can't spell
SENTENCE_ENDS = (".", "?", "!", "…")
AROUND = "\"'“”‘’„()[]«»"  # may stand around a word and the mark that ends a sentence
SEGMENT_GAP_SECONDS = 2.0  # a silence this long ends a segment


def join_tokens(
    tokens: Sequence[Token], duration: float, *, earliest: float = 0.0, before: str = ""
) -> tuple[Word, ...]:
    """Join tokens into words at `▁`; times rise and stay inside `[earliest, duration]`.

    A word starts with its first token and ends with its last. A token's predicted duration can be zero, or reach past
    the next token or the end of the audio, so ends are clamped and never lie before starts.
    A letter that the tokenizer has no piece for is spelled or left out (`_spell`); its time stays in the word.
    duration: of the audio. earliest, before: end and text of the word before these tokens; times in seconds.
    """
    groups = _group(tokens)
    words: list[Word] = []
    has_unknown = any(token.piece == UNKNOWN for group in groups for token in group)
    for index, group in enumerate(groups):
        own = _spell(group, words[-1].text if words else before) if has_unknown else group
        text = _text(own)
        latest = min(groups[index + 1][0].start, duration) if index + 1 < len(groups) else duration
        start = min(max(group[0].start, earliest), duration)
        # Punctuation is no sound: the model places it anywhere up to the next word.
        spoken = next((token for token in reversed(group) if _is_spoken(token.piece)), group[-1])
        end = max(start, min(spoken.end, latest))
        if text:
            words.append(Word(text, start, end, tuple(own)))
            earliest = end
        elif words:  # a lone `▁`: its probability belongs to the word before it
            last = words[-1]
            words[-1] = Word(last.text, last.start, last.end, (*last.tokens, *own))
    return tuple(words)


def last_word(tokens: Sequence[Token]) -> Sequence[Token]:
    """The tokens of the last word, and those after it that are no word."""
    count = 0
    for group in reversed(_group(tokens)):
        count += len(group)
        if _text(_spell(group, "")):
            break
    return tokens[len(tokens) - count :]


def _group(tokens: Sequence[Token]) -> list[list[Token]]:
    groups: list[list[Token]] = []
    for token in tokens:
        if not groups or token.piece.startswith(WORD_START):
            groups.append([])
        groups[-1].append(token)
    return groups


def _text(group: Sequence[Token]) -> str:
    return "".join([token.piece for token in group]).replace(WORD_START, " ").strip()


@lru_cache(maxsize=16_384)  # more than a vocabulary has
def _is_spoken(piece: str) -> bool:
    return any(c.isalnum() for c in piece)


def _spell(group: Sequence[Token], before: str) -> Sequence[Token]:
    """The tokens of a word with what the tokenizer can't spell spelled, if that is known, or left out.

    Parakeet v3 has no piece for the Russian letter `ё`. In a Russian word `UNKNOWN` can hardly be anything else.
    before: the word before; "" for none. `Ё` begins a sentence, and is among capital letters.
    """
    if all(token.piece != UNKNOWN for token in group):
        return group
    letters = [c for token in group if token.piece != UNKNOWN for c in token.piece if c.isalpha()]
    if not any(_is_russian(c) for c in letters) or not all(_is_russian(c) for c in letters):
        return [token for token in group if token.piece != UNKNOWN]
    is_upper = len(letters) > 1 and all(c.isupper() for c in letters)
    spelled: list[Token] = []
    for token in group:
        if token.piece == UNKNOWN:
            is_first = not any(c.isalpha() for earlier in spelled for c in earlier.piece)
            begins = is_first and (not before or ends_sentence(before))
            token = dataclasses.replace(token, piece="Ё" if begins or is_upper else "ё")
        spelled.append(token)
    return spelled


def _is_russian(letter: str) -> bool:
    return "а" <= letter.lower() <= "я"


def ends_sentence(word: str, following: str = "", language: str | None = None) -> bool:
    """Whether a sentence ends with this word: `door.` and `"why?"` do; `3.5`, `Mr.` and `U.` before a name do not.

    following: the word after it; "" for none. language: of both, ISO-639-1; None if it is not known.
    A full stop before a small letter ends nothing. Before others, the abbreviations and ordinals of the language
    decide, which sentencex knows (docs/decisions/0016-sentences.md).
    """
    bare = word.strip(AROUND)
    if not bare.endswith(SENTENCE_ENDS):
        return False
    if bare.endswith(("?", "!")) or bare == "I.":
        return True
    if next((c for c in following if c.isalnum()), "A").islower():
        return False
    if bare.endswith("…"):
        return True
    is_initial = len(bare) == 2 and bare[0].isupper()
    return not is_initial and len(sentencex.segment(language or "en", f"{bare} {following or 'Name'}")) > 1


def is_divided(word: Word, following: Word, language: str | None = None) -> bool:
    """Whether a segment ends between these two words: with a sentence, or in a silence of `SEGMENT_GAP_SECONDS`."""
    return ends_sentence(word.text, following.text, language) or following.start - word.end >= SEGMENT_GAP_SECONDS


def split_segments(words: Sequence[Word], language: str | None = None) -> Sequence[Segment]:
    """Split words into sentences, and where a silence of `SEGMENT_GAP_SECONDS` divides a sentence."""
    starts = [0] if words else []
    starts += [
        index
        for index, (word, following) in enumerate(itertools.pairwise(words), start=1)
        if is_divided(word, following, language)
    ]
    ends = [*starts[1:], len(words)]
    return LazySequence(len(starts), lambda index: Segment(tuple(words[starts[index] : ends[index]])))
