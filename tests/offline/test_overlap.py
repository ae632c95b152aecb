"""Two utterances that overlap: every word once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.offline.overlap import merge_overlap
from parakeet_stt.text.transcript import Word


def words(text: str, start: float, each: float = 0.4) -> tuple[Word, ...]:
    """One after another, each of the same length; `_` is a pause."""
    said = text.split()
    return tuple(Word(word, start + each * n, start + each * (n + 1), ()) for n, word in enumerate(said) if word != "_")


def text(found: tuple[Word, ...]) -> str:
    return " ".join(word.text for word in found)


def test_what_both_have_heard_is_there_once() -> None:
    before = words("one two three four five six seven eight nine ten", 0)
    after = words("six seven eight nine ten eleven twelve", 2.0)
    assert (
        text(merge_overlap(before, after, 2.0, 4.0)) == "one two three four five six seven eight nine ten eleven twelve"
    )


def test_words_cut_in_half_at_the_edges_are_left_to_the_other() -> None:
    before = words("one two three four five six seven eight nine. T", 0)
    after = words("X seven eight nine ten eleven", 2.0)
    assert text(merge_overlap(before, after, 2.0, 4.0)) == "one two three four five six seven eight nine ten eleven"


def test_the_pair_nearest_to_the_middle_is_the_seam() -> None:
    before = words("a b c the d the e WRONG", 0)
    after = words("WRONG the d the e f g", 0.8)
    assert text(merge_overlap(before, after, 0.8, 3.2)) == "a b c the d the e f g"


def test_case_and_punctuation_do_not_matter_and_the_first_ones_stay() -> None:
    before = words("It is late.", 0)
    after = words("Is late now.", 0.4)
    assert text(merge_overlap(before, after, 0.4, 1.4)) == "It is late. now."


def test_equal_words_at_other_times_are_not_a_pair() -> None:
    before = words("one two three the", 0)
    after = words("_ _ _ _ _ the four", 0.4)
    assert text(merge_overlap(before, after, 0.4, 2.8)) == "one two three the the four"


def test_where_they_do_not_agree_on_anything_the_middle_is_the_seam() -> None:
    before = words("one two three fourteen five", 0)
    after = words("tree forty six seven", 0.8)
    assert text(merge_overlap(before, after, 0.8, 2.0)) == "one two three forty six seven"
    assert text(merge_overlap((), words("six seven", 1.0), 0.8, 1.6)) == "six seven"
    assert text(merge_overlap(words("one two", 0), (), 0.8, 1.6)) == "one two"


@given(st.integers(5, 40), st.floats(0.15, 0.9), st.floats(0, 0.2), st.integers(0, 3), st.data())
def test_a_text_that_is_heard_alike_is_never_doubled_nor_lost(
    count: int, each: float, shift: float, garbled: int, data: st.DataObject
) -> None:
    """The words around the edges of the two may be anything."""
    said = words(" ".join(f"w{n}" for n in range(count)), 0, each)
    middle = data.draw(st.floats(0, count * each))
    start, end = middle - 1, middle + 1
    before = [word for word in said if word.start < end]
    after = [word.shift(shift) for word in said if word.end > start]
    common = [word for word in said if word.start < end and word.end > start]
    # Words have to be left that are the same in both.
    if len(common) > 2 * (garbled + 2) and end - start > 2 * each * (garbled + 2):
        for n in range(garbled):
            before[-1 - n] = Word(f"x{n}", before[-1 - n].start, before[-1 - n].end, ())
            after[n] = Word(f"y{n}", after[n].start, after[n].end, ())
    if before and after:
        assert text(merge_overlap(before, after, start, end)) == text(said)


def test_times_still_rise() -> None:
    before, after = words("a b c d e", 0), words("c d e f", 0.85)
    found = merge_overlap(before, after, 0.8, 2.0)
    assert [word.start for word in found] == pytest.approx([0, 0.4, 0.8, 1.2, 1.6, 2.05], abs=0.06)
