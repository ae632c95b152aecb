"""Knows how the words of two utterances become one where both have heard the same stretch. Does not know audio."""

from __future__ import annotations

from collections.abc import Sequence

from parakeet_stt.text.transcript import Word

# Between the times of one word in two utterances: they differ by a few steps of 80 ms where the context is short.
TOLERANCE_SECONDS = 0.3


def joined(before: Sequence[Word], after: Sequence[Word], start: float, end: float) -> tuple[Word, ...]:
    """All words, those that were heard twice once.

    start, end: the stretch that both have heard, at the end of `before` and the beginning of `after`, in the seconds
    of their words. Near its edge each is at its worst: words are cut in half there. So the seam is the pair of equal
    words at about the same time that is nearest to the middle; without one, the middle itself, and then words that are
    said at the same time are taken from `before`.
    """
    middle = (start + end) / 2
    pairs = [
        (abs(_middle(one) + _middle(other) - 2 * middle), i, j)
        for i, one in enumerate(before)
        if one.end > start
        for j, other in enumerate(after)
        if other.start < end and _is_same(one, other)
    ]
    if pairs:
        _, i, j = min(pairs)
        return (*before[: i + 1], *after[j + 1 :])
    kept = tuple(word for word in before if _middle(word) < middle)
    edge = kept[-1].end if kept else start
    return (*kept, *(word for word in after if _middle(word) >= edge))


def _is_same(one: Word, other: Word) -> bool:
    return abs(one.start - other.start) <= TOLERANCE_SECONDS and _bare(one.text) == _bare(other.text)


def _bare(text: str) -> str:
    return "".join(c for c in text.lower() if c.isalnum())


def _middle(word: Word) -> float:
    return (word.start + word.end) / 2
