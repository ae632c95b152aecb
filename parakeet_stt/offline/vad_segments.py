"""Knows how speech probabilities become spans, and spans utterances to recognize. Does not know the detector or audio.

Generators, one after another: probabilities → speech spans → padded spans → utterances of bounded length. Each gives a
span as soon as nothing to come can change it. An empty span among them is a mark: the silence has lasted so long that
what comes later has nothing to do with what was before. Speech that is too long without a pause is cut in two that
overlap.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Span

WINDOW_SAMPLES = 512  # 32 ms at 16 kHz: the only window that Silero accepts
# Heard by both utterances where speech is cut without a pause, half before the cut and half after it, so that each word
# there is whole in one of them (seams.py). A long word takes a second.
OVERLAP_SAMPLES = 2 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """When sound counts as speech.

    onset, offset: thresholds to enter and to leave speech; with min_silence_ms Silero's own defaults
    (`get_speech_timestamps`). pad_ms: kept around each span, so that no soft consonant is lost at its edges.
    max_pause_ms: the longest inside an utterance; models make more errors around longer ones (docs/benchmarks.md).
    """

    onset: float = 0.5
    offset: float = 0.35
    min_silence_ms: int = 100
    min_speech_ms: int = 64
    pad_ms: int = 200
    max_pause_ms: int = 1000

    @staticmethod
    def offset_for(onset: float) -> float:
        """The threshold to leave speech that goes with one to enter it: lower by 0.15, as Silero has it."""
        return max(onset - 0.15, 0.01)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What becomes one utterance. overlap: samples at its end with which the next one begins, since no pause is there.

    An empty one is a mark: nothing before it is needed any more.
    """

    span: Span
    overlap: int = 0


def utterance_spans(
    probabilities: Iterable[npt.NDArray[np.float32]], rules: SpeechRules, longest: float, *, soon: bool = False
) -> Iterator[Stretch]:
    """The stretches that hold speech, in order, each beginning and ending at a pause, if there is one.

    probabilities: one for each window of `WINDOW_SAMPLES`, in arrays of any length; where they were divided makes no
    difference. longest: samples of one stretch, at most; infinite for one stretch from the first to the last speech.
    Speech without a pause for longer than that is cut where the detector is least sure of it, in the last third, and
    the parts overlap by `OVERLAP_SAMPLES`.
    soon: whether the first are to be shorter, a quarter of that at most and then half, unless they hold no pause, or
    all speech is within half of it anyway.
    The last may reach beyond the audio, by its padding.
    """
    pad = rules.pad_ms * SAMPLE_RATE // 1000
    windows = chain.from_iterable(part.tolist() for part in probabilities)
    spans = _padded(_spoken(windows, rules, longest - 2 * pad - OVERLAP_SAMPLES, longest), pad)
    limits: Iterator[float] = repeat(longest)
    if soon:
        first, is_all = _until(longest / 2, spans)
        spans = chain(first, spans)
        limits = limits if is_all else chain((longest / 4, longest / 2), limits)
    reach = max(0, rules.max_pause_ms * SAMPLE_RATE // 1000 - 2 * pad) if longest < math.inf else math.inf
    yield from _grouped(spans, limits, reach)


def _spoken(windows: Iterable[float], rules: SpeechRules, longest: float, pause: float) -> Iterator[Span]:
    """Where speech is, to the window; a mark each time that it has been silent for `pause` samples.

    Two that touch are one that was cut, since it was longer than `longest`.
    """
    shortest = rules.min_speech_ms * SAMPLE_RATE // 1000
    silence = rules.min_silence_ms * SAMPLE_RATE / 1000
    begun: int | None = None  # of the present speech
    quiet: int | None = None  # since when there may be none
    ended = 0  # the last speech, or the last mark
    after_cut = False
    heard: list[float] = []  # since `begun`
    position = 0
    for probability in windows:
        position += WINDOW_SAMPLES
        if begun is None:
            if probability >= rules.onset:
                begun, quiet, after_cut, heard = position - WINDOW_SAMPLES, None, False, [probability]
            elif position - ended >= pause:
                yield Span(position, position)
                ended = position
            continue
        heard.append(probability)
        if probability >= rules.offset:
            quiet = None
        else:
            quiet = position - WINDOW_SAMPLES if quiet is None else quiet
            if position - quiet >= silence:
                if quiet - begun >= (1 if after_cut else shortest):
                    yield Span(begun, quiet)
                begun, ended = None, quiet
                continue
        if position - begun > longest:
            first = len(heard) * 2 // 3
            quietest = first + int(np.argmin(heard[first:-1]))
            cut = position - (len(heard) - quietest) * WINDOW_SAMPLES + WINDOW_SAMPLES // 2
            yield Span(begun, cut)
            begun, after_cut, heard = cut, True, heard[quietest:]
    if begun is not None:
        end = position if quiet is None else quiet
        if end - begun >= (1 if after_cut else shortest):
            yield Span(begun, end)


def _padded(spans: Iterable[Span], pad: int) -> Iterator[Span]:
    """Each span with silence around it; a pause that is too short for two paddings is shared by its neighbours.

    Two that touch overlap afterwards.
    """
    start, last = 0, None  # of the span that waits for its end, and itself
    for span in spans:
        if last is None:
            start = max(span.start - pad, start)
        elif span.start == last.end and span.length:
            yield Span(start, last.end + OVERLAP_SAMPLES // 2)
            start = max(span.start - OVERLAP_SAMPLES // 2, start)
        else:
            middle = (last.end + span.start) // 2
            yield Span(start, min(last.end + pad, middle))
            start = max(span.start - pad, (last.end + span.start + 1) // 2)
        if span.length:
            last = span
        else:
            yield Span(start, start)
            last = None
    if last is not None:
        yield Span(start, last.end + pad)


def _until(length: float, spans: Iterator[Span]) -> tuple[list[Span], bool]:
    """The first spans, up to one that ends later than `length` after they begin; and whether there is none."""
    first: list[Span] = []
    for span in spans:
        first.append(span)
        if span.end - first[0].start > length:
            return first, False
    return first, True


def _grouped(spans: Iterable[Span], limits: Iterator[float], reach: float) -> Iterator[Stretch]:
    """Neighbours joined that are within `reach` of each other, as long as they stay within the limit of each."""
    group: Span | None = None
    longest = next(limits)
    for span in spans:
        if group and span.length and span.end - group.start <= longest and span.start - group.end <= reach:
            group = Span(group.start, span.end)
            continue
        if group:
            yield Stretch(group, max(0, group.end - span.start))
            longest = next(limits)
        group = span if span.length else None
        if not span.length:
            yield Stretch(span)
    if group:
        yield Stretch(group)


def no_speech_probability(probabilities: npt.NDArray[np.float32], start: float, end: float) -> float:
    """1 − the mean speech probability over `[start, end]` seconds; 1.0 where there is no window."""
    first = int(start * SAMPLE_RATE / WINDOW_SAMPLES)
    last = max(first + 1, int(np.ceil(end * SAMPLE_RATE / WINDOW_SAMPLES)))
    heard = probabilities[first:last]
    return 1.0 - float(heard.mean()) if len(heard) else 1.0
