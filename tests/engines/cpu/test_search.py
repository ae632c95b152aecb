"""The search for a CPU finds what NeMo's finds."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines.boosting import Boosting
from parakeet_stt.engines.cpu.search import StepSearch
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.text.phrases import Phrases
from tests.conftest import Sample

Encoded = tuple[torch.Tensor, torch.Tensor]


@pytest.fixture(scope="module")
def encoded(engine: Parakeet, samples: dict[str, Sample]) -> Encoded:
    """Six stretches of speech and one of silence that is shorter than a frame."""
    long = samples["two-minutes"].audio().samples
    lengths = (3.0, 12.0, 1.0, 7.3, 5.01, 2.2)
    audios = [long[start * SAMPLE_RATE :][: int(length * SAMPLE_RATE)] for start, length in enumerate(lengths)]
    with torch.inference_mode():
        return engine._encode([Audio(audio) for audio in (*audios, np.zeros(80, np.float32))])


@pytest.fixture
def plain(engine: Parakeet) -> Iterator[Any]:
    """NeMo's search of the same model."""
    search = engine._computer
    most = search.max_symbols
    yield search
    search.max_symbols = most


def tokens(found: Any) -> list[list[tuple[int, int]]]:
    """The tokens of each item with their frames."""
    rows = zip(found.transcript.tolist(), found.timestamps.tolist(), found.current_lengths.tolist(), strict=True)
    return [list(zip(labels[:count], frames[:count], strict=True)) for labels, frames, count in rows]


def check_states(one: Any, other: Any) -> None:
    """The same states of a search, but for the last digits."""
    for name in ("labels", "time_jumps"):
        assert torch.equal(getattr(one, name), getattr(other, name))
    parts = ((state.predictor_outputs, *state.predictor_states) for state in (one, other))
    for left, right in zip(*parts, strict=True):
        assert left.shape == right.shape
        assert torch.allclose(left, right, atol=1e-4)


@pytest.mark.parametrize("most", [10, 2, 1], ids="at most {} tokens a frame".format)
@pytest.mark.parametrize("items", [range(7), (1,), (6,), (0, 3)], ids=str)
def test_the_tokens_and_the_state_are_those_of_nemos_search(
    plain: Any, encoded: Encoded, items: Sequence[int], most: int
) -> None:
    plain.max_symbols = most
    chosen = torch.tensor(list(items))
    audio, frames = encoded[0][chosen], encoded[1][chosen]
    with torch.inference_mode():
        expected, expected_state = plain(x=audio, out_len=frames)
        found, state = StepSearch(plain)(audio, frames)
    assert tokens(found) == tokens(expected)
    assert max(map(len, tokens(found))) > 10 or tuple(items) == (6,)
    check_states(state, expected_state)


@pytest.mark.parametrize("first", [1, 20, 40])
def test_a_search_in_parts_finds_what_nemos_finds_in_the_same_parts(plain: Any, encoded: Encoded, first: int) -> None:
    audio, frames = encoded
    before = torch.minimum(frames, torch.tensor(first))
    own = StepSearch(plain)
    with torch.inference_mode():
        _, expected_state = plain(x=audio[:, :first], out_len=before)
        expected, expected_state = plain(audio[:, first:], frames - before, expected_state)
        _, state = own(audio[:, :first], before)
        found, state = own(audio[:, first:], frames - before, state)
    starts = before.tolist()  # NeMo counts frames from the first part on here
    assert tokens(found) == [
        [(label, frame - start) for label, frame in row] for row, start in zip(tokens(expected), starts, strict=True)
    ]
    check_states(state, expected_state)


@pytest.mark.parametrize("first", [15, 200])
def test_a_search_with_phrases_finds_what_nemos_finds(
    engine: Parakeet, plain: Any, encoded: Encoded, first: int
) -> None:
    audio, frames = encoded
    boosting = Boosting(plain, engine._model.tokenizer, engine._pieces, weight=8)
    phrases: list[Phrases] = [("Zanzibar",), ("fiend", "tram"), ("quarter",), (), ("the",), (), ()]
    trees, plain = torch.from_numpy(boosting.build_trees(phrases)), boosting.computer
    before = torch.minimum(frames, torch.tensor(first))
    results: list[tuple[list[Any], Any]] = []
    with torch.inference_mode():
        for search in (plain, StepSearch(plain)):
            found, state = search(x=audio[:, :first], out_len=before, multi_biasing_ids=trees)
            parts: list[Any] = [tokens(found)]
            if first < audio.shape[1]:
                found, state = search(audio[:, first:], frames - before, state, trees)
                parts.append([[label for label, _ in row] for row in tokens(found)])
            results.append((parts, state))
        unhelped = tokens(StepSearch(plain)(audio[:, :first], before, None, torch.full((7,), -1))[0])
    (expected, expected_state), (own, own_state) = results
    assert own == expected
    assert own[0] != unhelped or first == 15
    check_states(own_state, expected_state)
    assert torch.equal(own_state.fusion_states_list[0], expected_state.fusion_states_list[0])


def test_what_the_search_keeps_for_the_scores_is_what_the_prediction_network_gives(
    engine: Parakeet, plain: Any, encoded: Encoded
) -> None:
    with torch.inference_mode():
        found, _ = StepSearch(plain)(*encoded)
        predicted = engine._scorer._predict(found.transcript, engine._states.first(len(encoded[0])))
    for own, expected, count in zip(found.predicted, predicted, found.current_lengths.tolist(), strict=True):
        assert torch.allclose(own[:count], expected[:count], atol=1e-4)
