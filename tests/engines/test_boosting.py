"""Phrase boosting, on the real tiny model."""

from __future__ import annotations

import pickle

import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import boosting
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.text.alignment import join_tokens
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis
from tests.conftest import Sample
from tests.engines import rare_words


@pytest.fixture(scope="module")
def boosted() -> Parakeet:
    """An engine of its own, so that the others' stays without trees."""
    return Parakeet(BUNDLED_FILE, device="cpu")


@pytest.fixture(scope="module")
def sixteen(samples: dict[str, Sample]) -> list[Audio]:
    long = samples["two-minutes"].audio().samples
    return [Audio(long[i * 8 * SAMPLE_RATE : (i * 8 + 4 + i % 4) * SAMPLE_RATE]) for i in range(16)]


def text_of(hypothesis: Hypothesis, audio: Audio) -> str:
    return " ".join(word.text for word in join_tokens(hypothesis.tokens, audio.duration))


def test_phrases_of_one_item_change_nothing_for_the_others(boosted: Parakeet, sixteen: list[Audio]) -> None:
    plain = boosted.recognize(sixteen)
    phrases: list[Phrases] = [NO_PHRASES] * 16
    phrases[3] = ("Zanzibar", "midnight", "quarterly report")
    beside = boosted.recognize(sixteen, phrases)
    assert pickle.dumps(beside[:3] + beside[4:]) == pickle.dumps(plain[:3] + plain[4:])
    assert pickle.dumps(boosted.recognize(sixteen)) == pickle.dumps(plain)


def test_trees_are_kept_for_those_who_come_again_and_no_more_than_so_many(
    boosted: Parakeet, sixteen: list[Audio], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boosting, "MAX_TREES", 4)
    expected = boosted.recognize(sixteen[:2], [("tram",), ("ocean",)])
    for number in range(12):
        boosted.recognize(sixteen[:1], [(f"word {number}",)])
        assert len(boosted._boosting._trees) <= 4
    together = [(f"phrase {number}",) for number in range(16)]
    boosted.recognize(sixteen, together)  # more at once than are kept
    assert boosted.recognize(sixteen[:2], [("tram",), ("ocean",)]) == expected


def test_log_probabilities_stay_the_models_own(boosted: Parakeet, sixteen: list[Audio]) -> None:
    """The text that is found anyway, with its words to listen for: the same tokens, and nothing is added to them."""
    (plain,) = boosted.recognize(sixteen[:1])
    words = tuple(sorted(set(text_of(plain, sixteen[0]).split())))
    (found,) = boosted.recognize(sixteen[:1], [words])
    assert [token.id for token in found.tokens] == [token.id for token in plain.tokens]
    assert [token.logprob for token in found.tokens] == pytest.approx(
        [token.logprob for token in plain.tokens], abs=1e-5
    )


def test_rare_words_are_found_more_often_and_others_are_not_invented(boosted: Parakeet) -> None:
    sentences = rare_words.clips()
    plain = rare_words.find(boosted, sentences, 0, boosted=False)
    helped = rare_words.find(boosted, sentences, 0, boosted=True)
    assert helped.keywords > 250
    assert helped.recall > plain.recall + 3
    assert helped.invented <= plain.invented + 3
    assert helped.word_errors < plain.word_errors
