"""Word errors: what they count, how certain they are, and how far word times are off."""

from __future__ import annotations

import math
import random

import pytest

from parakeet_stt.measure.normalizers import NORMALIZERS
from parakeet_stt.measure.word_errors import Errors, align, bootstrap, bootstrap_difference, count_errors
from parakeet_stt.measure.word_times import measure_times, summarize
from parakeet_stt.text.transcript import Word


@pytest.mark.parametrize(
    ("said", "found", "errors"),
    [
        ("a b c", "a b c", Errors(3)),
        ("a b c", "a x c", Errors(3, substitutions=1)),
        ("a b c", "a c", Errors(3, deletions=1)),
        ("a b c", "a b d c", Errors(3, insertions=1)),
        ("a b c", "", Errors(3, deletions=3)),
        ("", "a b", Errors(0, insertions=2)),
        ("a b c d", "x b d e", Errors(4, substitutions=1, deletions=1, insertions=1)),
    ],
)
def test_errors_by_their_kind(said: str, found: str, errors: Errors) -> None:
    assert count_errors(said.split(), found.split()) == errors


def test_an_alignment_pairs_the_words() -> None:
    pairs = [("the", "the"), ("old", ""), ("man", "man"), ("", "said")]
    assert align(["the", "old", "man"], ["the", "man", "said"]) == pairs


def test_rates_add_up_over_recordings() -> None:
    total = Errors(10, 1, 0, 0) + Errors(30, 0, 2, 1)
    assert (total.words, total.total, total.rate) == (40, 4, 10.0)
    assert math.isnan(Errors().rate)


def test_normalizers() -> None:
    text = "Mr. Smith's colour, um, was twenty-one!"
    assert NORMALIZERS["none"](text) == ["Mr.", "Smith's", "colour,", "um,", "was", "twenty-one!"]
    assert NORMALIZERS["plain"](text) == ["mr", "smiths", "colour", "um", "was", "twentyone"]
    assert NORMALIZERS["english"](text) == [
        "mister",
        "smith",
        "is",
        "color",
        "was",
        "21",
    ]  # as openai/whisper's own does


def test_the_interval_narrows_with_the_square_root_of_the_recordings() -> None:
    pick = random.Random(0)

    def recordings(count: int) -> list[Errors]:
        return [Errors(20, sum(pick.random() < 0.1 for _ in range(20))) for _ in range(count)]

    few, many = bootstrap(recordings(100)), bootstrap(recordings(10_000))
    assert few[0] < 10 < few[1]
    assert many[0] < 10.2
    assert many[1] > 9.8
    # A word is wrong with p = 0.1, so the interval is 2 * 1.96 * sqrt(p * (1 - p) / words).
    assert many[1] - many[0] == pytest.approx(392 * math.sqrt(0.09 / 200_000), rel=0.15)
    assert few[1] - few[0] == pytest.approx(392 * math.sqrt(0.09 / 2000), rel=0.35)


def test_no_words_have_no_interval() -> None:
    assert all(map(math.isnan, bootstrap([])))
    assert all(map(math.isnan, bootstrap([Errors(0, insertions=3)])))


def test_a_difference_is_surer_than_two_rates_apart() -> None:
    pick = random.Random(1)
    first = [Errors(10, pick.randrange(8)) for _ in range(200)]  # recordings of very different difficulty
    second = [Errors(10, one.substitutions + (number % 5 == 0)) for number, one in enumerate(first)]
    low, high = bootstrap_difference(first, second)
    assert 1 < low < 2 < high < 3
    assert bootstrap(first)[1] > bootstrap(second)[0]  # apart, they could be the same
    assert bootstrap_difference(first, first) == (0, 0)


def words(*given: tuple[str, float, float]) -> list[Word]:
    return [Word(text, start, end, ()) for text, start, end in given]


def test_times_are_compared_where_the_word_is_right() -> None:
    truth = words(("The", 0.0, 0.2), ("old", 0.2, 0.5), ("man,", 0.5, 0.9), ("—", 0.9, 0.9), ("again", 1.0, 1.5))
    found = words(("the", 0.1, 0.2), ("bold", 0.2, 0.5), ("man", 0.45, 1.0), ("once", 1.0, 1.1), ("Again.", 1.2, 1.4))
    errors = measure_times(truth, found)
    assert errors == [pytest.approx((0.1, 0.0)), pytest.approx((0.05, 0.1)), pytest.approx((0.2, 0.1))]
    summary = summarize(errors)
    assert summary
    assert (summary.words, summary.start_median_ms, summary.end_median_ms) == (3, 100, 100)
    assert summarize([]) is None
