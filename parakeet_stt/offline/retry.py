"""Knows where speech was heard and no word was found, and how that is cut to be tried again. Does not know who tries.

Models of this family say nothing at all for some utterances, and for the rest of some others: after silence at the
beginning, after the end of a sentence, or for a length that they have not learnt. Another cut often helps.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Span
from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES
from parakeet_stt.text.transcript import Word

MISSED_SECONDS = 1.0  # of speech between words, or before or after them: more than a drawn-out vowel or a breath
MISSED_ALL_SECONDS = 0.25  # of speech in an utterance without words: less than a short word
NEAR_SECONDS = 0.2  # of a word: its own times are not more exact
LEAD_SECONDS = 0.05  # of sound before the speech, when it is tried again
HALVED_SECONDS = 1.0  # what is longer is also tried in two halves


def missed(utterance: Utterance, words: Sequence[Word], onset: float) -> list[Span]:
    """Where speech has no words: spans of the utterance's samples, from the first speech to the last.

    words: with times counted from the start of the utterance. onset: the probability from which sound is speech.
    """
    offset = utterance.span.start % WINDOW_SAMPLES  # of the utterance's start in its first window
    spoken = utterance.probabilities >= onset
    shortest = MISSED_SECONDS if words else MISSED_ALL_SECONDS
    starts = [0.0, *(word.end + NEAR_SECONDS for word in words)]
    ends = [*(word.start - NEAR_SECONDS for word in words), utterance.audio.duration]
    found = []
    for start, end in zip(starts, ends, strict=True):
        if end - start < shortest:
            continue
        first = -(-(int(start * SAMPLE_RATE) + offset) // WINDOW_SAMPLES)
        windows = first + np.flatnonzero(spoken[first : (int(end * SAMPLE_RATE) + offset) // WINDOW_SAMPLES])
        if len(windows) * WINDOW_SAMPLES >= shortest * SAMPLE_RATE:
            span = Span(
                max(0, int(windows[0]) * WINDOW_SAMPLES - offset),
                min((int(windows[-1]) + 1) * WINDOW_SAMPLES - offset, len(utterance.audio.samples)),
            )
            found.append(span)
    return found


def attempts(utterance: Utterance, span: Span) -> list[list[Span]]:
    """What is decoded instead, one attempt after another, each of one or two spans of the utterance's samples.

    First without the silence before it; then in two halves, cut at the quietest place in the middle third.
    """
    start, end = max(0, span.start - int(LEAD_SECONDS * SAMPLE_RATE)), span.end
    end = min(end + int(NEAR_SECONDS * SAMPLE_RATE), len(utterance.audio.samples))
    if span.length < HALVED_SECONDS * SAMPLE_RATE:
        return [[Span(start, end)]]
    first, count = span.start // WINDOW_SAMPLES, span.length // WINDOW_SAMPLES
    third = utterance.probabilities[first + count // 3 : first + 2 * count // 3]
    cut = (first + count // 3 + int(np.argmin(third))) * WINDOW_SAMPLES + WINDOW_SAMPLES // 2
    return [[Span(start, end)], [Span(start, cut), Span(cut, end)]]
