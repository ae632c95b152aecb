"""Speech probabilities → speech spans → the spans of utterances.

Generators, one after another: probabilities → speech spans → padded spans → utterances of bounded length. Each yields a
span as soon as no later probability can change it. An empty span is a mark: the silence has lasted so long that what
follows can't be joined to what was before. Speech that is too long without a pause is cut in two that overlap.

A generator that is given None yields None: no more is known until more audio has been read.
"""

from __future__ import annotations

import math
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Span
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities

# In both utterances where speech is cut without a pause, half before the cut and half after it, so that each word there
# is whole in one of them (overlap.py). A long word takes a second.
OVERLAP_SAMPLES = 2 * SAMPLE_RATE


@dataclass(frozen=True, slots=True)
class SpeechRules:
    """When audio counts as speech.

    onset, offset: thresholds to enter and to leave speech; like min_silence_ms Silero's own defaults
    (`get_speech_timestamps`). pad_ms: added around each span, so that no soft consonant is lost at its edges.
    max_pause_ms: longest pause inside an utterance; models make more errors around longer ones (docs/benchmarks.md).
    """

    onset: float = 0.5
    offset: float = 0.35
    min_silence_ms: int = 100
    min_speech_ms: int = 64
    pad_ms: int = 200
    max_pause_ms: int = 1000


@dataclass(frozen=True, slots=True)
class Stretch:
    """The span of one utterance. overlap: samples at its end with which the next one begins, where there is no pause.

    An empty span is a mark: the audio before it is not needed any more.
    """

    span: Span
    overlap: int = 0


def utterance_spans(
    probabilities: Iterable[Probabilities | None], rules: SpeechRules, longest: float, *, short_first: bool = False
) -> Iterator[Stretch | None]:
    """Yield the stretches that hold speech, in order; each begins and ends at a pause, if there is one.

    probabilities: one for each window of `WINDOW_SAMPLES`, in arrays of any length; their lengths make no difference.
    None where no more are there yet, and then None is yielded.
    longest: samples of one stretch, at most; infinite for one stretch from the first to the last speech. Longer speech
    without a pause is cut where its probability is lowest, in the last third, and the parts overlap by
    `OVERLAP_SAMPLES`.
    short_first: limit the first stretch to a quarter of `longest` and the second to half, unless they hold no pause, or
    all speech is within half of `longest` anyway.
    The last stretch may reach beyond the audio, by its padding.
    """
    pad = rules.pad_ms * SAMPLE_RATE // 1000
    windows = chain.from_iterable((None,) if part is None else part.tolist() for part in probabilities)
    spans = _padded(_spoken(windows, rules, longest - 2 * pad - OVERLAP_SAMPLES, longest), pad)
    limits: Iterator[float] = repeat(longest)
    if short_first:
        first, is_all = yield from _until(longest / 2, spans)
        spans = chain(first, spans)
        limits = limits if is_all else chain((longest / 4, longest / 2), limits)
    reach = max(0, rules.max_pause_ms * SAMPLE_RATE // 1000 - 2 * pad) if longest < math.inf else math.inf
    yield from _grouped(spans, limits, reach)


def _spoken(windows: Iterable[float | None], rules: SpeechRules, longest: float, pause: float) -> Iterator[Span | None]:
    """Yield speech spans, exact to the window, and a mark after each silence of `pause` samples.

    Two spans that touch are one span that was cut, since it was longer than `longest`.
    """
    shortest = rules.min_speech_ms * SAMPLE_RATE // 1000
    silence = rules.min_silence_ms * SAMPLE_RATE / 1000
    begun: int | None = None  # of the present speech
    quiet: int | None = None  # where a pause may have begun
    ended = 0  # end of the last speech, or place of the last mark
    after_cut = False
    recent: list[float] = []  # probabilities since `begun`
    position = 0
    for probability in windows:
        if probability is None:
            yield None
            continue
        position += WINDOW_SAMPLES
        if begun is None:
            if probability >= rules.onset:
                begun, quiet, after_cut, recent = position - WINDOW_SAMPLES, None, False, [probability]
            elif position - ended >= pause:
                yield Span(position, position)
                ended = position
            continue
        recent.append(probability)
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
            first = len(recent) * 2 // 3
            quietest = first + int(np.argmin(recent[first:-1]))
            cut = position - (len(recent) - quietest) * WINDOW_SAMPLES + WINDOW_SAMPLES // 2
            yield Span(begun, cut)
            begun, after_cut, recent = cut, True, recent[quietest:]
    if begun is not None:
        end = position if quiet is None else quiet
        if end - begun >= (1 if after_cut else shortest):
            yield Span(begun, end)


def _padded(spans: Iterable[Span | None], pad: int) -> Iterator[Span | None]:
    """Pad each span with silence; two spans share a pause that is too short for two paddings.

    Two spans that touch overlap afterwards.
    """
    start, last = 0, None  # padded start of the last span, and the span itself
    for span in spans:
        if span is None:
            yield None
            continue
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


def _until(length: float, spans: Iterator[Span | None]) -> Generator[None, None, tuple[list[Span], bool]]:
    """The first spans, up to the one that ends more than `length` after their start; and whether they are all."""
    first: list[Span] = []
    for span in spans:
        if span is None:
            yield None
            continue
        first.append(span)
        if span.end - first[0].start > length:
            return first, False
    return first, True


def _grouped(spans: Iterable[Span | None], limits: Iterator[float], reach: float) -> Iterator[Stretch | None]:
    """Join neighbours that are within `reach` of each other, while the stretch stays within its limit."""
    group: Span | None = None
    longest = next(limits)
    for span in spans:
        if span is None:
            yield None
            continue
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
