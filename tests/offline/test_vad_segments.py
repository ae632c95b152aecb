"""Probabilities to spans to utterances."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.audio import SAMPLE_RATE, Span
from parakeet_stt.offline import vad_segments as speech
from parakeet_stt.offline.vad_segments import OVERLAP_SAMPLES, SpeechRules, Stretch, utterance_spans
from parakeet_stt.text.openai_json import no_speech_probability
from parakeet_stt.vad import WINDOW_SAMPLES

TIGHT = SpeechRules(pad_ms=0)
Windows = npt.NDArray[np.float32]


def windows(*parts: tuple[float, int]) -> Windows:
    return np.concatenate([np.full(count, probability, np.float32) for probability, count in parts])


def samples(window: int) -> int:
    return window * WINDOW_SAMPLES


def spans(probabilities: Windows, rules: SpeechRules = TIGHT, longest: float = 0.0) -> list[Span]:
    """What is found, without the marks."""
    return [one.span for one in stretches(probabilities, rules, longest)]


def stretches(
    probabilities: Windows, rules: SpeechRules = TIGHT, longest: float = 0.0, *, short_first: bool = False
) -> list[Stretch]:
    found = utterance_spans([probabilities], rules, longest or math.inf, short_first=short_first)
    return [one for one in found if one and one.span.length]


def apart(probabilities: Windows, rules: SpeechRules = TIGHT) -> list[Span]:
    """The spans before they are joined to utterances."""
    pad = rules.pad_ms * SAMPLE_RATE // 1000
    found = speech._padded(speech._spoken(iter(probabilities.tolist()), rules, math.inf, math.inf), pad)
    return [span for span in found if span]


def test_speech_between_silences_is_one_span() -> None:
    assert apart(windows((0.0, 10), (0.9, 20), (0.0, 10))) == [Span(samples(10), samples(30))]


def test_a_short_dip_does_not_divide_a_span_and_a_pause_does() -> None:
    assert apart(windows((0.9, 10), (0.1, 2), (0.9, 10))) == [Span(0, samples(22))]
    pause = apart(windows((0.9, 10), (0.1, 8), (0.9, 10)))
    assert pause == [Span(0, samples(10)), Span(samples(18), samples(28))]


def test_between_the_two_thresholds_speech_goes_on_but_does_not_begin() -> None:
    assert apart(windows((0.4, 20))) == []
    assert apart(windows((0.9, 2), (0.4, 20))) == [Span(0, samples(22))]


def test_padding_begins_inside_the_audio_and_is_shared_between_neighbours() -> None:
    found = apart(windows((0.9, 10), (0.0, 4), (0.9, 10)), SpeechRules(pad_ms=500))
    assert found == [Span(0, samples(12)), Span(samples(12), samples(24) + SAMPLE_RATE // 2)]


def test_a_click_is_no_speech() -> None:
    assert apart(windows((0.0, 5), (0.9, 1), (0.0, 20))) == []


def test_all_from_the_first_to_the_last_speech_is_one_span_if_no_limit_is_set() -> None:
    found = spans(windows((0.9, 10), (0.0, 90_000), (0.9, 10)))
    assert found == [Span(0, samples(90_020))]


def test_a_long_silence_is_marked_so_that_its_audio_need_not_be_kept() -> None:
    found = list(utterance_spans([windows((0.9, 10), (0.0, 300), (0.9, 10))], TIGHT, samples(100)))
    assert [one and one.span for one in found] == [
        Span(0, samples(10)),
        *[Span(samples(mark), samples(mark)) for mark in (110, 210, 310)],
        Span(samples(310), samples(320)),
    ]


def test_an_utterance_is_given_out_before_what_follows_a_long_silence_is_heard() -> None:
    read = 0

    def arriving() -> Iterator[Windows]:
        nonlocal read
        for part in (windows((0.9, 10)), *[windows((0.0, 50))] * 20):
            read += len(part)
            yield part

    assert next(iter(utterance_spans(arriving(), TIGHT, samples(100)))) == Stretch(Span(0, samples(10)))
    assert read <= 160


PARTS = st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(1, 60)), min_size=1, max_size=40)


def test_the_first_utterances_are_shorter_if_their_words_are_waited_for() -> None:
    talk = windows(*[(0.9, 8), (0.0, 12)] * 40)
    usual = [one.span.length for one in stretches(talk, TIGHT, samples(160))]
    short_first = [one.span.length for one in stretches(talk, TIGHT, samples(160), short_first=True)]
    assert usual[:3] == [samples(148)] * 3
    assert short_first[:3] == [samples(28), samples(68), samples(148)]
    short = talk[:70]
    assert len(stretches(short, TIGHT, samples(160), short_first=True)) == 1


@given(PARTS, st.integers(100, 300), st.integers(0, 400))
def test_utterances_keep_all_speech_in_order_and_within_the_limit(
    parts: list[tuple[float, int]], limit: int, pad_ms: int
) -> None:
    probabilities, rules = windows(*parts), SpeechRules(pad_ms=pad_ms)
    pieces = stretches(probabilities, rules, samples(limit))
    covered = np.zeros(samples(len(probabilities) + 100), bool)
    edge = 0
    for piece in pieces:
        assert edge <= piece.span.start < piece.span.end
        assert piece.span.length <= samples(limit)
        assert 0 <= piece.overlap <= OVERLAP_SAMPLES  # less where other speech ends shortly before
        covered[piece.span.start : piece.span.end] = True
        edge = piece.span.end - piece.overlap
    unpadded = apart(probabilities, dataclasses.replace(rules, pad_ms=0))
    assert all(covered[span.start : span.end].all() for span in unpadded)


@given(PARTS, st.integers(100, 300), st.lists(st.integers(1, 50), max_size=30))
def test_it_makes_no_difference_how_the_probabilities_are_divided(
    parts: list[tuple[float, int]], limit: int, cuts: list[int]
) -> None:
    probabilities = windows(*parts)
    divided = np.split(probabilities, np.minimum(np.cumsum(cuts), len(probabilities)))
    whole = list(utterance_spans([probabilities], SpeechRules(), samples(limit)))
    assert list(utterance_spans(divided, SpeechRules(), samples(limit))) == whole


@given(PARTS, st.integers(100, 300), st.lists(st.integers(0, 50), max_size=30), st.booleans())
def test_each_none_comes_out_once_and_changes_no_span(
    parts: list[tuple[float, int]], limit: int, cuts: list[int], short_first: bool
) -> None:
    """None says that no more is read yet: it comes out at once, before anything that a later window decides."""
    probabilities = windows(*parts)
    divided = np.split(probabilities, np.minimum(np.cumsum(cuts), len(probabilities)))
    fed = 0

    def arriving() -> Iterator[Windows | None]:
        nonlocal fed
        for part in divided:
            yield part
            fed += 1
            yield None

    whole = list(utterance_spans([probabilities], SpeechRules(), samples(limit), short_first=short_first))
    found: list[Stretch] = []
    nones = 0
    for one in utterance_spans(arriving(), SpeechRules(), samples(limit), short_first=short_first):
        if one is None:
            nones += 1
            assert nones == fed
        else:
            found.append(one)
    assert found == whole
    assert nones == len(divided)


SPANS = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 60)), max_size=20).map(
    lambda pairs: [
        Span(samples(end - length), samples(end))
        for (_, length), end in zip(pairs, itertools.accumulate(gap + length for gap, length in pairs), strict=True)
    ]
)


@given(SPANS, st.lists(st.integers(0, 20)), st.integers(0, 8000))
def test_none_passes_the_stages_after_detection_as_it_is(spans: list[Span], places: list[int], pad: int) -> None:
    """The stages take what the one before gives, so each is tried with None between any two spans."""
    with_nones: list[Span | None] = list(spans)
    for place in places:
        with_nones.insert(place, None)
    for stage in (
        lambda given: speech._padded(given, pad),
        lambda given: speech._grouped(given, itertools.repeat(samples(100)), samples(20)),
    ):
        expected = list(stage(iter(spans)))
        found = list(stage(iter(with_nones)))
        assert [one for one in found if one is not None] == expected
        assert found.count(None) == len(places)


def test_speech_without_a_pause_is_cut_where_it_is_quietest_and_heard_twice_there() -> None:
    probabilities = windows((0.9, 200))
    probabilities[110] = 0.6
    found = stretches(probabilities, longest=samples(190))
    cut, half = samples(110) + WINDOW_SAMPLES // 2, OVERLAP_SAMPLES // 2
    assert found == [Stretch(Span(0, cut + half), 2 * half), Stretch(Span(cut - half, samples(200)))]


def test_speech_with_a_pause_within_reach_is_cut_there_and_heard_once() -> None:
    found = stretches(windows((0.9, 110), (0.0, 6), (0.9, 100)), longest=samples(190))
    assert found == [Stretch(Span(0, samples(110))), Stretch(Span(samples(116), samples(216)))]


def test_the_no_speech_probability_is_that_of_the_stretch() -> None:
    probabilities = windows((0.0, 50), (0.9, 50))
    middle = samples(50) / SAMPLE_RATE
    assert no_speech_probability(probabilities, 0, middle) == pytest.approx(1.0)
    assert no_speech_probability(probabilities, middle, 2 * middle) == pytest.approx(0.1, abs=1e-6)
    assert no_speech_probability(probabilities, 99, 100) == 1.0
