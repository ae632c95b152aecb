"""Knows how speech probabilities become spans, and spans become utterances to recognize. Does not know the detector.

Three pure passes: probabilities → speech spans → utterances of bounded length, each with its exact offset in samples.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stt.audio import SAMPLE_RATE, Span

WINDOW_SAMPLES = 512  # 32 ms at 16 kHz: the only window that Silero accepts


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """When sound counts as speech.

    onset, offset: thresholds to enter and to leave speech; with min_silence_ms Silero's own defaults
    (`get_speech_timestamps`). pad_ms: kept around each span, so that no soft consonant is lost at its edges.
    """

    onset: float = 0.5
    offset: float = 0.35
    min_silence_ms: int = 100
    min_speech_ms: int = 64
    pad_ms: int = 200


def speech_spans(probabilities: npt.NDArray[np.float32], num_samples: int, rules: SpeechRules) -> tuple[Span, ...]:
    """The spans that hold speech, in order, apart from each other, inside `[0, num_samples)`.

    probabilities: one for each window of `WINDOW_SAMPLES`, shape (num_windows,).
    """
    raw: list[tuple[int, int]] = []
    begun: int | None = None
    silence_windows = rules.min_silence_ms * SAMPLE_RATE / 1000 / WINDOW_SAMPLES
    quiet_since: int | None = None
    for window, probability in enumerate(probabilities.tolist()):
        if begun is None:
            if probability >= rules.onset:
                begun, quiet_since = window, None
        elif probability >= rules.offset:
            quiet_since = None
        else:
            quiet_since = window if quiet_since is None else quiet_since
            if window + 1 - quiet_since >= silence_windows:
                raw.append((begun, quiet_since))
                begun = None
    if begun is not None:
        raw.append((begun, len(probabilities) if quiet_since is None else quiet_since))

    pad = rules.pad_ms * SAMPLE_RATE // 1000
    shortest = rules.min_speech_ms * SAMPLE_RATE / 1000
    kept = [(a * WINDOW_SAMPLES, b * WINDOW_SAMPLES) for a, b in raw if (b - a) * WINDOW_SAMPLES >= shortest]
    spans: list[Span] = []
    for index, (start, end) in enumerate(kept):
        # A pause shorter than two paddings is shared between its neighbours.
        earliest = (kept[index - 1][1] + start + 1) // 2 if index else 0
        latest = (end + kept[index + 1][0]) // 2 if index + 1 < len(kept) else num_samples
        spans.append(Span(max(start - pad, earliest), min(end + pad, latest, num_samples)))
    return tuple(spans)


def utterances(spans: Sequence[Span], probabilities: npt.NDArray[np.float32], max_samples: int) -> tuple[Span, ...]:
    """Group speech spans into stretches of at most `max_samples`, each beginning and ending at a pause.

    A span that is longer by itself is cut where the detector is least sure of speech, in the last third that fits.
    """
    pieces = [piece for span in spans for piece in _cut_long(span, probabilities, max_samples)]
    grouped: list[Span] = []
    for piece in pieces:
        if grouped and piece.end - grouped[-1].start <= max_samples:
            grouped[-1] = Span(grouped[-1].start, piece.end)
        else:
            grouped.append(piece)
    return tuple(grouped)


def _cut_long(span: Span, probabilities: npt.NDArray[np.float32], max_samples: int) -> list[Span]:
    parts = []
    start = span.start
    while span.end - start > max_samples:
        last = (start + max_samples) // WINDOW_SAMPLES - 1
        first = (start + max_samples * 2 // 3) // WINDOW_SAMPLES
        quietest = first + int(np.argmin(probabilities[first : last + 1]))
        cut = quietest * WINDOW_SAMPLES + WINDOW_SAMPLES // 2
        parts.append(Span(start, cut))
        start = cut
    return [*parts, Span(start, span.end)]


def no_speech_probability(probabilities: npt.NDArray[np.float32], start: float, end: float) -> float:
    """1 − the mean speech probability over `[start, end]` seconds; 1.0 where there is no window."""
    first = int(start * SAMPLE_RATE / WINDOW_SAMPLES)
    last = max(first + 1, int(np.ceil(end * SAMPLE_RATE / WINDOW_SAMPLES)))
    heard = probabilities[first:last]
    return 1.0 - float(heard.mean()) if len(heard) else 1.0
