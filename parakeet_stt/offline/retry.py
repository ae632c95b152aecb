"""Finds speech without words in a decoded utterance, and the cuts with which to decode it again.

Models of this family give no words for some utterances, and for the end of some others: after silence at the beginning,
after the end of a sentence, or for a length that is rare in their training data. Another cut often helps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Span
from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.text.coverage import MISSED_ALL_SECONDS, MISSED_SECONDS, NEAR_SECONDS
from parakeet_stt.text.transcript import Word
from parakeet_stt.vad import WINDOW_SAMPLES

HALVED_SECONDS = 1.0  # longer speech is also tried in two halves
MOST_ATTEMPTS = 2


def find_missed(utterance: Utterance, words: Sequence[Word], onset: float, *, within: Span | None = None) -> list[Span]:
    """Spans of the utterance's samples in which speech has no words, from first to last speech.

    words: times in seconds from the start of the utterance. onset: lowest probability that counts as speech.
    within: a span in which speech without words was found before, and `words` are all that was found in it since: what
    is left is missed even if it is short.
    """
    offset = utterance.span.start % WINDOW_SAMPLES  # of the utterance's start in its first window
    is_speech = utterance.probabilities >= onset
    shortest = MISSED_SECONDS if words and not within else MISSED_ALL_SECONDS
    inside = within or Span(0, utterance.audio.length)
    starts = [inside.start / SAMPLE_RATE, *(word.end + NEAR_SECONDS for word in words)]
    ends = [*(word.start - NEAR_SECONDS for word in words), inside.end / SAMPLE_RATE]
    missed = []
    for start, end in zip(starts, ends, strict=True):
        if end - start < shortest:
            continue
        first = -(-(round(start * SAMPLE_RATE) + offset) // WINDOW_SAMPLES)
        windows = first + np.flatnonzero(is_speech[first : (round(end * SAMPLE_RATE) + offset) // WINDOW_SAMPLES])
        if len(windows) * WINDOW_SAMPLES >= shortest * SAMPLE_RATE:
            span = Span(
                max(0, int(windows[0]) * WINDOW_SAMPLES - offset),
                min((int(windows[-1]) + 1) * WINDOW_SAMPLES - offset, utterance.audio.length),
            )
            missed.append(span)
    return missed


def plan_attempts(utterance: Utterance, missed: Span) -> list[list[Span]]:
    """What to decode instead, one attempt after another, at most `MOST_ATTEMPTS`.

    Each attempt is one or two spans of the utterance's samples. The first leaves out the silence before the speech, and
    reaches to the words around it, if they are near. The second cuts the speech in two at the quietest window of its
    middle third.
    """
    near = round(NEAR_SECONDS * SAMPLE_RATE)
    start, end = max(0, missed.start - near), min(missed.end + near, utterance.audio.length)
    if missed.length < HALVED_SECONDS * SAMPLE_RATE:
        return [[Span(start, end)]]
    first, count = missed.start // WINDOW_SAMPLES, missed.length // WINDOW_SAMPLES
    third = utterance.probabilities[first + count // 3 : first + 2 * count // 3]
    cut = (first + count // 3 + int(np.argmin(third))) * WINDOW_SAMPLES + WINDOW_SAMPLES // 2
    return [[Span(start, end)], [Span(start, cut), Span(cut, end)]]
