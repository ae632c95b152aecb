"""How the words of hours are stored."""

from __future__ import annotations

import tracemalloc

from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.text.transcript import Token, Word, WordList

times = st.floats(0, 1e5)
tokens = st.builds(Token, id=st.integers(0, 8191), piece=st.text(max_size=3), start=times, end=times, logprob=times)
some_words = st.lists(st.builds(Word, st.text(), times, times, st.lists(tokens, max_size=3).map(tuple)), max_size=8)


@given(some_words, some_words)
def test_words_come_back_as_they_were_added(before: list[Word], after: list[Word]) -> None:
    words = WordList(before)
    words.extend(after)
    everything = [*before, *after]
    assert list(words) == everything
    assert list(words[1:3]) == everything[1:3]
    assert words.text == " ".join(word.text for word in everything)
    assert list(words.tokens) == [token for word in everything for token in word.tokens]


def test_many_words_take_a_quarter_of_the_memory_of_as_many_objects() -> None:
    def word(at: float) -> Word:
        pieces = ("▁car", "ry", ".")
        tokens = tuple(Token(3, piece, at + n, at + n + 0.08, -0.1 * at) for n, piece in enumerate(pieces))
        return Word(f"carry{int(at) % 1000}.", at, at + 0.5, tokens)

    def memory_of(into: WordList | list[Word]) -> int:
        before, _ = tracemalloc.get_traced_memory()
        for number in range(20_000):
            into.extend([word(number / 3)]) if isinstance(into, WordList) else into.append(word(number / 3))
        return tracemalloc.get_traced_memory()[0] - before

    tracemalloc.start()
    try:
        objects, packed = memory_of([]), memory_of(WordList())
    finally:
        tracemalloc.stop()
    assert packed < objects / 4
