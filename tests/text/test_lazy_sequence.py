"""Sequences whose items are made when they are read."""

from __future__ import annotations

from parakeet_stt.text.lazy_sequence import DeferredSequence


def test_a_deferred_sequence_is_made_once_and_not_before_it_is_read() -> None:
    made = []

    def make() -> list[str]:
        made.append(1)
        return ["a", "b", "c"]

    items = DeferredSequence(make)
    assert not made
    assert len(items) == 3
    assert (items[0], items[-1], list(items[1:]), list(items)) == ("a", "c", ["b", "c"], ["a", "b", "c"])
    assert made == [1]
