"""How a stream is cut into the detector's windows, wherever it was divided."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, WindowFramer, offset_for


@given(length=st.integers(0, 5000), cuts=st.lists(st.integers(0, 5000), max_size=20))
def test_each_window_has_the_end_of_the_one_before_and_no_sample_is_lost(length: int, cuts: list[int]) -> None:
    stream = np.arange(1, length + 1, dtype=np.float32)
    framer = WindowFramer()
    parts = [framer.push(part) for part in np.split(stream, sorted(cut for cut in cuts if cut < length))]
    windows = np.concatenate([*parts, framer.flush()])
    assert windows.shape == (-(-length // WINDOW_SAMPLES), CONTEXT_SAMPLES + WINDOW_SAMPLES)
    assert np.array_equal(windows[:, CONTEXT_SAMPLES:].reshape(-1)[:length], stream)
    assert not windows[:, CONTEXT_SAMPLES:].reshape(-1)[length:].any()
    for before, window in itertools.pairwise(windows):
        assert np.array_equal(window[:CONTEXT_SAMPLES], before[-CONTEXT_SAMPLES:])
    assert not windows[:1, :CONTEXT_SAMPLES].any()


def test_the_windows_are_those_that_silero_was_trained_on() -> None:
    from silero_vad.sequence_vad import RATE_CONFIG

    assert RATE_CONFIG[16_000] == (WINDOW_SAMPLES, CONTEXT_SAMPLES)


def test_speech_is_left_below_the_threshold_at_which_it_is_entered() -> None:
    assert offset_for(0.5) == pytest.approx(0.35)
    assert offset_for(0.1) == 0.01
