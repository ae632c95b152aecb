"""How far the times of a transcript's words are from the true ones."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parakeet_stt.measure.normalizers import split_plain
from parakeet_stt.measure.word_errors import NOTHING, align
from parakeet_stt.text.transcript import Word


@dataclass(frozen=True)
class TimeErrors:
    """Summary of the time errors of `words` words, in ms."""

    words: int
    start_median_ms: int
    start_p95_ms: int
    end_median_ms: int
    end_p95_ms: int


def measure_times(truth: Sequence[Word], found: Sequence[Word]) -> list[tuple[float, float]]:
    """(start, end) errors in seconds of the words that are found as they were said.

    Case and punctuation make no difference; words without a letter or digit are left out.
    """
    said, heard = ([("".join(split_plain(word.text)), word) for word in words] for words in (truth, found))
    said, heard = ([pair for pair in pairs if pair[0]] for pairs in (said, heard))
    errors = []
    at_said = at_heard = 0
    for one, other in align([text for text, _ in said], [text for text, _ in heard]):
        if one == other:
            true, own = said[at_said][1], heard[at_heard][1]
            errors.append((abs(own.start - true.start), abs(own.end - true.end)))
        at_said += one != NOTHING
        at_heard += other != NOTHING
    return errors


def summarize(errors: Sequence[tuple[float, float]]) -> TimeErrors | None:
    """Their medians and 95th percentiles; None without errors."""
    if not errors:
        return None
    (start50, end50), (start95, end95) = 1000 * np.percentile(np.array(errors), [50, 95], axis=0)
    return TimeErrors(len(errors), round(start50), round(start95), round(end50), round(end95))
