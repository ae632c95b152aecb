"""Merges the words of two utterances that overlap."""

from __future__ import annotations

from collections.abc import Sequence

from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.text.transcript import Word

# Largest difference between the start times of one word in two utterances: where the context is short, the two times
# differ by a few frames of 80 ms.
TOLERANCE_SECONDS = 0.3


class OverlapMerger:
    """Merges the words of a recording's utterances, one after another."""

    def __init__(self) -> None:
        self._tail: tuple[Word, ...] = ()  # words in the overlap with the next utterance
        self._overlap = 0.0

    def push(self, words: tuple[Word, ...], utterance: Utterance) -> tuple[Word, ...]:
        """The words that are final now. words: of the next utterance; times from the start of the recording."""
        if self._overlap:
            words = merge_overlap(self._tail, words, utterance.start, utterance.start + self._overlap)
        self._overlap = utterance.overlap
        begin = utterance.end - utterance.overlap
        self._tail = tuple(word for word in words if self._overlap and word.end > begin)
        return words[: len(words) - len(self._tail)]

    def finish(self) -> tuple[Word, ...]:
        """The words that the last utterance has left."""
        tail, self._tail = self._tail, ()
        return tail


def merge_overlap(before: Sequence[Word], after: Sequence[Word], start: float, end: float) -> tuple[Word, ...]:
    """Merge two overlapping word lists; words in the overlap appear once.

    start, end: of the overlap, at the end of `before` and the beginning of `after`, in the seconds of their words.
    Each list is at its worst near its edge, where words are cut in half. So the lists are joined at the pair of equal
    words at about the same time that is nearest to the middle of the overlap. Without such a pair they are joined at
    the middle, and `before` wins where two words are spoken at the same time.
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
