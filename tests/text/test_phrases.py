"""What is listened for, of what callers send."""

from __future__ import annotations

import time

import pytest

from parakeet_stt.text.phrases import find_distinctive, normalize_phrases, spelling_variants


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
    began = time.perf_counter()
    assert find_distinctive("She met Bert and Carl. " * 45_000) == ("Bert", "Carl")
    assert time.perf_counter() - began < 5
