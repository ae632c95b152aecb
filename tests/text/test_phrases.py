"""What is listened for, of what callers send."""

from __future__ import annotations

import time

import pytest

from parakeet_stt.text.phrases import (
    can_spell,
    find_distinctive,
    normalize_phrases,
    spelling_variants,
    split_script,
    with_script,
)


def test_equal_wishes_are_equal_values() -> None:
    assert normalize_phrases(["b  c", " a", "a", "", "b c"]) == ("a", "b c") == normalize_phrases(["a", "b c"])


@pytest.mark.parametrize(
    ("prompt", "found"),
    [
        ("", ()),
        ("The meeting is about dinner.", ()),
        ("The meeting with Anna Smith is about Kubernetes 1.30.", ("1.30", "Anna", "Kubernetes", "Smith")),
        ("ZyntriQix, Digique Plus, CynapseFive, B.R.I.G.H.T. Link",
         ("B.R.I.G.H.T", "CynapseFive", "Digique", "Link", "Plus", "ZyntriQix")),
        ("PyTorch runs it. We like it.", ("PyTorch",)),
        ("Kubernetes, Docker", ("Docker", "Kubernetes")),
        ("It was GPT-4 or so", ("GPT-4",)),
    ],
)  # fmt: skip
def test_of_a_prompt_only_names_and_codes_count(prompt: str, found: tuple[str, ...]) -> None:
    assert find_distinctive(prompt) == found


def test_a_phrase_is_listened_for_in_each_way_it_may_be_written() -> None:
    assert set(spelling_variants("new York")) == {"new York", "new york", "New York", "New york"}


def test_a_prompt_of_a_megabyte_is_read_in_a_moment() -> None:
    """Every word once looked at all that came before it: minutes, on the event loop."""
    began = time.process_time()
    assert find_distinctive("She met Bert and Carl. " * 45_000) == ("Bert", "Carl")
    assert time.process_time() - began < 5


def test_a_script_is_asked_for_only_where_the_languages_have_one_and_the_model_has_several() -> None:
    english, european = ("en",), ("en", "de", "ru", "el")
    assert with_script(("a",), ["en"], english) == ("a",)
    assert with_script(("a",), [], european) == ("a",)
    assert with_script(("a",), ["de", "ru"], european) == ("a",)
    assert split_script(with_script(("a",), ["de", "en"], european)) == (("a",), "latin")
    assert split_script(with_script((), ["ru"], european)) == ((), "cyrillic")
    assert split_script(normalize_phrases(["\0greek"])) == (("greek",), None)  # no caller can send one


def test_a_phrase_without_letters_can_not_be_spelled_and_the_typographic_apostrophe_is_the_plain_one() -> None:
    letters = frozenset("abcdefghijklmnopqrstuvwxyz'")
    assert normalize_phrases(["O’Brien"]) == ("O'Brien",)
    assert can_spell("o'brien", letters)
    assert can_spell("ANNA", letters)  # in small letters
    assert not can_spell("C++", letters)
    assert not can_spell("AT&T", letters)
