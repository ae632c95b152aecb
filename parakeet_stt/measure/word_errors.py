"""Counts the words that a transcript has wrong, and says how certain a word error rate is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import kaldialign
import numpy as np
import numpy.typing as npt

Pair = tuple[str, str]  # a word that was said and the word found for it; one of them is `NOTHING` or both are words
NOTHING = ""
RESAMPLES = 1000
CONFIDENCE = 0.95


@dataclass(frozen=True)
class Errors:
    """How a transcript differs from what was said. words: that were said."""

    words: int = 0
    substitutions: int = 0
    deletions: int = 0
    insertions: int = 0

    @property
    def total(self) -> int:
        return self.substitutions + self.deletions + self.insertions

    @property
    def rate(self) -> float:
        """The word error rate, in percent; NaN if no word was said."""
        return 100 * self.total / self.words if self.words else float("nan")

    def __add__(self, other: Errors) -> Errors:
        return Errors(
            self.words + other.words,
            self.substitutions + other.substitutions,
            self.deletions + other.deletions,
            self.insertions + other.insertions,
        )


def align(said: Sequence[str], found: Sequence[str]) -> list[Pair]:
    """Pairs of words with the smallest number of errors. Words must not be empty."""
    return [(one, other) for one, other in kaldialign.align(said, found, NOTHING)]


def count_errors(said: Sequence[str], found: Sequence[str]) -> Errors:
    """The errors of the alignment of both."""
    return count_pairs(align(said, found))


def count_pairs(pairs: Sequence[Pair]) -> Errors:
    """The errors of an alignment."""
    insertions = sum(said == NOTHING for said, _ in pairs)
    deletions = sum(found == NOTHING for _, found in pairs)
    wrong = sum(said != found for said, found in pairs)
    return Errors(len(pairs) - insertions, wrong - insertions - deletions, deletions, insertions)


def bootstrap(counts: Sequence[Errors], seed: int = 0) -> tuple[float, float]:
    """The 95 % confidence interval of the word error rate, in percent, by resampling recordings with replacement.

    counts: of each recording. Source: Bisani and Ney 2004, "Bootstrap estimates for confidence intervals in ASR
    performance evaluation"; the bounds are percentiles. NaN if no word was said.
    """
    return _interval(_resampled_rates(np.array([[one.total, one.words] for one in counts]), seed))


def bootstrap_difference(first: Sequence[Errors], second: Sequence[Errors], seed: int = 0) -> tuple[float, float]:
    """The same of the second's word error rate less the first's, on the same recordings in the same order."""
    rates = [_resampled_rates(np.array([[one.total, one.words] for one in counts]), seed) for counts in (first, second)]
    return _interval(rates[1] - rates[0])  # the same seed draws the same recordings for both


def _resampled_rates(counts: npt.NDArray[np.int64], seed: int) -> npt.NDArray[np.float64]:
    """The rates of `RESAMPLES` resamples, in percent. counts: errors and words, shape (recordings, 2)."""
    if not len(counts) or not counts[:, 1].any():
        return np.full(RESAMPLES, np.nan)
    rng = np.random.default_rng(seed)
    sums = np.array([counts[rng.integers(len(counts), size=len(counts))].sum(0) for _ in range(RESAMPLES)])
    rates: npt.NDArray[np.float64] = 100 * sums[:, 0] / np.maximum(sums[:, 1], 1)
    return rates


def _interval(rates: npt.NDArray[np.float64]) -> tuple[float, float]:
    low, high = np.quantile(rates, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high)
