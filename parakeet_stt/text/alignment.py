"""Joins tokens into words, and words into segments."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.transcript import Segment, Token, Word

WORD_START = "▁"  # SentencePiece's mark for "a space was here"
SENTENCE_ENDS = (".", "?", "!", "…")
CLOSING = "\"'”’)]»"  # may follow the mark that ends a sentence
# Words that end in a full stop without ending a sentence.
ABBREVIATIONS = frozenset({"mr.", "mrs.", "ms.", "dr.", "prof.", "st.", "vs.", "e.g.", "i.e."})
SEGMENT_GAP_SECONDS = 2.0  # a silence this long ends a segment


def join_tokens(tokens: Sequence[Token], duration: float, *, earliest: float = 0.0) -> tuple[Word, ...]:
    """Join tokens into words at `▁`; times rise and stay inside `[earliest, duration]`.

    A word starts with its first token and ends with its last. A token's predicted duration can be zero, or reach past
    the next token or the end of the audio, so ends are clamped and never lie before starts.
    duration: of the audio. earliest: end of the word before these tokens. Both in seconds.
    """
    groups: list[list[Token]] = []
    for token in tokens:
        if not groups or token.piece.startswith(WORD_START):
            groups.append([])
        groups[-1].append(token)
    words: list[Word] = []
    for index, group in enumerate(groups):
        text = "".join(token.piece for token in group).replace(WORD_START, " ").strip()
        latest = min(groups[index + 1][0].start, duration) if index + 1 < len(groups) else duration
        start = min(max(group[0].start, earliest), duration)
        # Punctuation is no sound: the model places it anywhere up to the next word.
        spoken = next((t for t in reversed(group) if any(c.isalnum() for c in t.piece)), group[-1])
        end = max(start, min(spoken.end, latest))
        if text:
            words.append(Word(text, start, end, tuple(group)))
            earliest = end
        elif words:  # a lone `▁`: its probability belongs to the word before it
            before = words[-1]
            words[-1] = Word(before.text, before.start, before.end, (*before.tokens, *group))
    return tuple(words)


def ends_sentence(word: str) -> bool:
    """Whether a sentence ends with this word: `door.` and `"why?"` do; `3.5`, `Mr.` and `U.` do not."""
    bare = word.rstrip(CLOSING)
    if not bare.endswith(SENTENCE_ENDS):
        return False
    return not (
        bare.lower() in ABBREVIATIONS or (len(bare) == 2 and bare[0].isupper() and bare != "I." and bare[1] == ".")
    )


def is_divided(word: Word, following: Word) -> bool:
    """Whether a segment ends between these two words: with a sentence, or in a silence of `SEGMENT_GAP_SECONDS`."""
    return ends_sentence(word.text) or following.start - word.end >= SEGMENT_GAP_SECONDS


def split_segments(words: Sequence[Word]) -> Sequence[Segment]:
    """Split words into sentences, and where a silence of `SEGMENT_GAP_SECONDS` divides a sentence."""
    starts = [0] if words else []
    starts += [
        index
        for index, (word, following) in enumerate(itertools.pairwise(words), start=1)
        if is_divided(word, following)
    ]
    ends = [*starts[1:], len(words)]
    return LazySequence(len(starts), lambda index: Segment(tuple(words[starts[index] : ends[index]])))
