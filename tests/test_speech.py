"""Probabilities to spans to utterances."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from stt.audio import SAMPLE_RATE, Span
from stt.speech import WINDOW_SAMPLES, SpeechRules, no_speech_probability, speech_spans, utterances

TIGHT = SpeechRules(pad_ms=0)


def windows(*parts: tuple[float, int]) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.concatenate([np.full(count, probability, np.float32) for probability, count in parts])


def samples(window: int) -> int:
    return window * WINDOW_SAMPLES


def test_speech_between_silences_is_one_span() -> None:
    found = speech_spans(windows((0.0, 10), (0.9, 20), (0.0, 10)), samples(40), TIGHT)
    assert found == (Span(samples(10), samples(30)),)


def test_a_short_dip_does_not_divide_a_span_and_a_pause_does() -> None:
    dip = speech_spans(windows((0.9, 10), (0.1, 2), (0.9, 10)), samples(22), TIGHT)
    pause = speech_spans(windows((0.9, 10), (0.1, 8), (0.9, 10)), samples(28), TIGHT)
    assert dip == (Span(0, samples(22)),)
    assert pause == (Span(0, samples(10)), Span(samples(18), samples(28)))


def test_between_the_two_thresholds_speech_goes_on_but_does_not_begin() -> None:
    assert speech_spans(windows((0.4, 20)), samples(20), TIGHT) == ()
    assert speech_spans(windows((0.9, 2), (0.4, 20)), samples(22), TIGHT) == (Span(0, samples(22)),)


def test_padding_stays_inside_the_audio_and_is_shared_between_neighbours() -> None:
    found = speech_spans(windows((0.9, 10), (0.0, 4), (0.9, 10)), samples(24) - 100, SpeechRules(pad_ms=500))
    assert found == (Span(0, samples(12)), Span(samples(12), samples(24) - 100))


def test_a_click_is_no_speech() -> None:
    assert speech_spans(windows((0.0, 5), (0.9, 1), (0.0, 20)), samples(26), TIGHT) == ()


@given(
    st.lists(st.tuples(st.floats(0, 1, width=32), st.integers(1, 60)), min_size=1, max_size=40),
    st.integers(20, 200),
    st.integers(0, 400),
)
def test_utterances_keep_all_speech_in_order_and_within_the_limit(
    parts: list[tuple[float, int]], limit: int, pad_ms: int
) -> None:
    probabilities = windows(*parts)
    total = samples(len(probabilities))
    spans = speech_spans(probabilities, total, SpeechRules(pad_ms=pad_ms))
    pieces = utterances(spans, probabilities, samples(limit))
    covered = np.zeros(total, bool)
    edge = 0
    for piece in pieces:
        assert edge <= piece.start < piece.end <= total
        assert piece.length <= samples(limit)
        covered[piece.start : piece.end] = True
        edge = piece.end
    assert all(covered[span.start : span.end].all() for span in spans)


def test_speech_without_a_pause_is_cut_where_it_is_quietest() -> None:
    probabilities = windows((0.9, 100))
    probabilities[80] = 0.6
    pieces = utterances((Span(0, samples(100)),), probabilities, samples(90))
    assert [p.end for p in pieces] == [samples(80) + WINDOW_SAMPLES // 2, samples(100)]


def test_the_no_speech_probability_is_that_of_the_stretch() -> None:
    probabilities = windows((0.0, 50), (0.9, 50))
    middle = samples(50) / SAMPLE_RATE
    assert no_speech_probability(probabilities, 0, middle) == pytest.approx(1.0)
    assert no_speech_probability(probabilities, middle, 2 * middle) == pytest.approx(0.1, abs=1e-6)
    assert no_speech_probability(probabilities, 99, 100) == 1.0
