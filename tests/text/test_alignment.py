"""Tokens to words, words to segments."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.text.alignment import ends_sentence, join_tokens, last_word, split_segments
from parakeet_stt.text.transcript import Token, Word


def token(piece: str, start: float, end: float, logprob: float = -0.1) -> Token:
    return Token(id=0, piece=piece, start=start, end=end, logprob=logprob)


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, (token("▁" + text, start, end),))


def test_a_word_starts_at_the_mark_and_takes_the_pieces_after_it() -> None:
    found = join_tokens([token("▁hel", 0.08, 0.16), token("lo", 0.16, 0.4), token("▁world", 0.48, 0.8)], 1.0)
    assert [(w.text, w.start, w.end) for w in found] == [("hello", 0.08, 0.4), ("world", 0.48, 0.8)]


def test_punctuation_belongs_to_its_word_but_does_not_prolong_it() -> None:
    found = join_tokens([token("▁door", 0.8, 1.04), token(".", 1.92, 2.0)], 2.0)
    assert [(w.text, w.end) for w in found] == [("door.", 1.04)]


def test_an_end_never_reaches_past_the_next_word_or_the_audio() -> None:
    found = join_tokens([token("▁one", 0.0, 0.32), token("▁two", 0.16, 0.64)], 0.5)
    assert [(w.start, w.end) for w in found] == [(0.0, 0.16), (0.16, 0.5)]


def test_a_lone_mark_gives_no_empty_word() -> None:
    found = join_tokens([token("▁a", 0.0, 0.08), token("▁", 0.08, 0.16), token("▁b", 0.16, 0.24)], 1.0)
    assert [w.text for w in found] == ["a", "b"]
    assert sum(len(w.tokens) for w in found) == 3


def spelled(*pieces: str, before: str = "") -> str:
    tokens = [token(piece, 0.08 * n, 0.08 * (n + 1)) for n, piece in enumerate(pieces)]
    found = join_tokens(tokens, 10, before=before)
    text = "".join(one.piece for word in found for one in word.tokens).replace("▁", " ").strip()
    assert text == " ".join(word.text for word in found)  # what log-probabilities say
    last = join_tokens(last_word(tokens), 10, before="a")
    assert [word.text.lower() for word in last] == [word.text.lower() for word in found[-1:]]
    return text


@pytest.mark.parametrize(
    ("pieces", "text"),
    [
        (("▁все", "▁п", "<unk>", "т"), "все пёт"),
        (("▁", "<unk>", "лка"), "Ёлка"),  # it begins the text
        (("▁Да.", "▁", "<unk>", "лка"), "Да. Ёлка"),
        (("▁моя", "▁", "<unk>", "лка"), "моя ёлка"),
        (("▁", "ВС", "<unk>"), "ВСЁ"),
        (("▁caf", "<unk>"), "caf"),
        (("▁<unk>"[1:],), ""),
        (("▁a", "<unk>", "▁b"), "a b"),
        (("▁", "<unk>", "▁b"), "b"),
        (("▁М", "и", "<unk>", "x"), "Миx"),  # no Russian word
        (("▁п", "і", "<unk>", "д"), "під"),  # Ukrainian, which has no ё
    ],
)
def test_an_unknown_letter_is_yo_in_a_russian_word_and_nothing_elsewhere(pieces: tuple[str, ...], text: str) -> None:
    assert spelled(*pieces) == text


def test_the_time_of_an_unknown_letter_stays_in_its_word() -> None:
    (found,) = join_tokens([token("▁caf", 0.08, 0.16), token("<unk>", 0.16, 0.4)], 1.0)
    assert (found.text, found.start, found.end) == ("caf", 0.08, 0.4)
    assert [one.piece for one in found.tokens] == ["▁caf"]


def test_no_tokens_are_no_words() -> None:
    assert join_tokens([], 1.0) == ()
    assert not split_segments([])


@given(
    st.lists(
        st.tuples(st.sampled_from(["▁a", "b", ".", "▁", "▁c."]), st.integers(0, 60), st.integers(0, 8)), max_size=30
    ),
    st.floats(0.1, 5.0),
)
def test_word_times_rise_and_stay_inside_the_audio(raw: list[tuple[str, int, int]], duration: float) -> None:
    frames = sorted(frame for _, frame, _ in raw)
    tokens = [token(piece, f * 0.08, (f + n) * 0.08) for (piece, _, n), f in zip(raw, frames, strict=True)]
    edge = 0.0
    for found in join_tokens(tokens, duration):
        assert edge <= found.start <= found.end <= duration
        assert found.text
        edge = found.end


@pytest.mark.parametrize("text", ["door.", "why?", "stop!", '"why?"', "so…", "I.", "(yes.)"])
def test_these_end_a_sentence(text: str) -> None:
    assert ends_sentence(text)


@pytest.mark.parametrize("text", ["door", "door,", "3.5", "Mr.", "e.g.", "U.", "a.m"])
def test_these_do_not(text: str) -> None:
    assert not ends_sentence(text)


@pytest.mark.parametrize(
    ("language", "text"),
    [
        ("en", "The U.S. economy grew. | It is 5 p.m. on Monday. | We met Mr. Bean vs. Mrs. Jones at 3.5 percent. | He "
               "lives in the U.S. | She left at 5 p.m. | Then he came. | No. 5 is here. | J. R. R. Tolkien wrote it."),
        ("de", "Am 3. Oktober ist Feiertag. | Er kommt z. B. morgen. | Das ist z.B. gut. | Herr Dr. Müller kam. | Er "
               "wohnt in der Nr. 5. | Er kam usw. und ging."),
        ("es", "El Sr. García llegó. | La Sra. López y el Dr. Pérez. | EE. UU. es grande. | Son las 5 p. m. del lunes. "
               "| ¿Qué? | ¡No! | Sí."),
        ("fr", "M. Dupont est là. | C'est p. ex. bon. | Le 1. mai. | Il est venu."),
        ("ru", "Это г. Москва. | Он родился в 1990 г. в Москве. | А. С. Пушкин писал. | Да."),
        ("cs", "Dne 3. října přišel. | Pan Ing. Novák. | Ne."),
        (None, "The door. | It opened… slowly. | He said: \"no.\" | Yes."),
    ],
)  # fmt: skip
def test_sentences_end_where_the_language_ends_them(language: str | None, text: str) -> None:
    sentences = text.split(" | ")
    words = [word(part, 0, 0) for part in " ".join(sentences).split()]
    assert [one.text for one in split_segments(words, language)] == sentences


def test_segments_are_sentences_and_long_silences_divide_them() -> None:
    words = [word("One", 0, 0.3), word("two.", 0.4, 0.7), word("Three", 0.8, 1.0), word("four", 3.5, 4.0)]
    segments = split_segments(words)
    assert [s.text for s in segments] == ["One two.", "Three", "four"]
    assert [(s.start, s.end) for s in segments] == [(0, 0.7), (0.8, 1.0), (3.5, 4.0)]
    assert segments[0].avg_logprob == pytest.approx(-0.1)


def test_shifting_moves_a_word_and_its_tokens() -> None:
    moved = word("one", 0.5, 0.75).shift(100)
    assert (moved.start, moved.end, moved.tokens[0].start, moved.tokens[0].end) == (100.5, 100.75, 100.5, 100.75)
