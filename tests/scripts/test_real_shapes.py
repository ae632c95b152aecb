"""The published archives' shapes, with random weights: v3's pieces, its signs and what it can't spell."""

from __future__ import annotations

import copy
import json
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from parakeet_stt.audio import Span
from parakeet_stt.engines.catalogue import CATALOGUE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk
from parakeet_stt.server.http.responses import json_bytes
from parakeet_stt.text.alignment import UNKNOWN, join_tokens, split_segments
from parakeet_stt.text.formats import TRANSCRIPTION_FORMATS, Detail, render_nemo_timestamps
from parakeet_stt.text.phrases import NO_PHRASES, can_spell, spelling_variants, with_script
from parakeet_stt.text.transcript import Hypothesis, Recording, Token, Transcript, WordList
from scripts.make import real_shapes
from tests.conftest import Sample

V3, TOKENS = "parakeet-tdt-0.6b-v3", 2048
PHRASES = ("C++", "AT&T", '"Anna"', "O’Brien", "O'Brien", "Анна", "пёс", "Ёлка", "Ὀδυσσεύς", "ΝΙΚΟΣ", "café", "<|en|>",
           "<pad>", "™", "ﬁne", "x y", "5 €", "日本")  # fmt: skip


def make(name: str, folder: Path, tokens: int | None = None) -> Path:
    """tokens: fewer than the real one has; NeMo takes half a minute to make and to load many thousands."""
    shape = real_shapes.SHAPES[name].small
    path = folder / f"{name}.nemo"
    real_shapes.build(replace(shape, tokens=tokens) if tokens else shape, path)
    return path


@pytest.fixture(scope="module")
def v3_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make(V3, tmp_path_factory.mktemp("v3"), TOKENS)


@pytest.fixture(scope="module")
def v3(v3_file: Path) -> Parakeet:
    return Parakeet(v3_file, device="cpu")


def prefer(engine: Parakeet, ids: np.ndarray) -> torch.Tensor:
    """Have the network say these tokens, whatever it is given; the biases before."""
    bias = engine._model.joint.joint_net[-1].bias
    before: torch.Tensor = bias.data.clone()
    scores = torch.randn(len(before), generator=torch.Generator().manual_seed(7))
    chosen = torch.zeros(len(before), dtype=torch.bool)
    chosen[torch.from_numpy(np.append(ids, len(engine.vocabulary)))] = True  # and blank
    bias.data = torch.where(chosen, 20 + scores, -20 + scores)
    bias.data[-5:] = 0
    return before


def test_v3_has_its_pieces_and_the_rest_are_signs(v3: Parakeet) -> None:
    assert len(v3.vocabulary) == TOKENS
    pieces = real_shapes.make_pieces(real_shapes.SHAPES[V3])
    assert list(v3.vocabulary) == pieces[:TOKENS]
    assert len(set(pieces)) == 8192
    assert v3.vocabulary[0] == UNKNOWN
    signs = [v3.vocabulary[number] for number in np.flatnonzero(~v3._pieces.is_text).tolist()]
    assert len(signs) == 263
    assert {"<|en|>", "<pad>", "<|nospeech|>"} <= set(signs)
    letters = {piece for piece in v3.vocabulary if len(piece) == 1}
    assert {"е", "σ", "ž"} <= letters
    assert not {"ё", "Ё", "ς"} & letters


def test_no_sign_and_nothing_unknown_reaches_any_text(v3: Parakeet, samples: dict[str, Sample]) -> None:
    audio = samples["short"].audio()
    signs = np.flatnonzero(~v3._pieces.is_text)
    letters = np.array([v3.vocabulary.index(piece) for piece in ("▁п", "е", "▁a", "b", ".")])
    before = prefer(v3, np.concatenate([signs, [0], letters]))
    try:
        with torch.inference_mode():
            raw = v3._model.decoding.rnnt_decoder_predictions_tensor(
                *v3._model(
                    input_signal=torch.from_numpy(audio.samples)[None], input_signal_length=torch.tensor([audio.length])
                ),
                return_hypotheses=True,
            )[0].y_sequence
        assert set(raw.tolist()) & set(signs.tolist())  # the network says them
        tokens = v3.recognize([audio])[0].tokens
    finally:
        v3._model.joint.joint_net[-1].bias.data = before
    assert all(v3._pieces.is_text[token.id] for token in tokens)
    words = WordList(join_tokens(tokens, audio.duration))
    recording = Recording(Transcript(words, split_segments(words), audio.duration, "en"), np.zeros(200, np.float32))
    written = [
        one.write(recording, Detail(words=True, logprobs=True, coverage=True)) for one in TRANSCRIPTION_FORMATS.values()
    ]
    bodies = [one if isinstance(one, str) else json_bytes(one).decode() for one in written]
    bodies.append(json.dumps(json.loads(json_bytes(render_nemo_timestamps(recording.transcript)))))
    assert not any("<" in body for body in bodies)


@pytest.mark.parametrize("phrase", PHRASES)
def test_what_a_caller_is_told_to_be_impossible_is_what_the_tokenizer_can_not_spell(
    phrase: str, v3: Parakeet, engine: Parakeet
) -> None:
    for one in (v3, engine):
        letters = {piece for piece in one.vocabulary if len(piece) == 1}
        ids = [one._model.tokenizer.text_to_ids(variant) for variant in spelling_variants(phrase)]
        possible = [own for own in ids if one._pieces.can_spell(own)]
        assert can_spell(phrase, letters) == bool(possible)
        tree = one._boosting._tree((phrase,))
        assert (tree >= 0) == bool(possible)


@pytest.fixture
def babbling(v3: Parakeet) -> Iterator[Parakeet]:
    """It says letters of all scripts, whatever it is given."""
    letters = [v3.vocabulary.index(c) for c in "abcdeабвгдеαβγδε"]
    before = prefer(v3, np.array(letters))
    yield v3
    v3._model.joint.joint_net[-1].bias.data = before


def scripts_in(tokens: Sequence[Token]) -> set[str]:
    return {unicodedata.name(c).split()[0] for token in tokens for c in token.piece if c.isalpha()}


def said(found: Hypothesis) -> list[tuple[int, float, float]]:
    return [(token.id, token.start, token.end) for token in found.tokens]


def test_a_language_leaves_out_other_scripts_for_its_own_item_of_the_batch(
    babbling: Parakeet, samples: dict[str, Sample]
) -> None:
    v3, audio = babbling, samples["short"].audio()
    known = CATALOGUE["nvidia/parakeet-tdt-0.6b-v3"].languages
    asked = [NO_PHRASES, *(with_script(NO_PHRASES, [one], known) for one in ("de", "ru", "el")), ("abc",),
             with_script(("abc",), ["de"], known)]  # fmt: skip
    found = v3.recognize([audio] * len(asked), asked)
    alone = v3.recognize([audio])[0]
    assert said(found[0]) == said(alone)
    assert [scripts_in(one.tokens) for one in (*found[1:4], found[5])] == [
        {"LATIN"},
        {"CYRILLIC"},
        {"GREEK"},
        {"LATIN"},
    ]
    assert said(found[4]) == said(v3.recognize([audio], [("abc",)])[0])


def test_a_language_leaves_out_other_scripts_in_live_speech_too(babbling: Parakeet, samples: dict[str, Sample]) -> None:
    audio = samples["short"].audio()
    german = with_script(NO_PHRASES, ["de"], CATALOGUE["nvidia/parakeet-tdt-0.6b-v3"].languages)
    half = 24 * FRAME_SAMPLES
    first = [Chunk(audio.slice(Span(0, half + 8 * FRAME_SAMPLES)), 0, 8 * FRAME_SAMPLES, None)] * 2
    results = babbling.decode_chunks(first, [NO_PHRASES, german])
    following = [Chunk(audio, half, 0, one.state) for one in results]
    then = babbling.decode_chunks(following, [NO_PHRASES, german])
    plain = scripts_in(results[0].stable) | scripts_in(then[0].stable)
    assert plain == scripts_in(babbling.recognize([audio])[0].tokens)
    assert scripts_in(results[1].stable) | scripts_in(results[1].unstable) | scripts_in(then[1].stable) == {"LATIN"}


def test_in_bfloat16_durations_do_not_tie(v3: Parakeet) -> None:
    """NeMo's own normalization on a CPU rounds tokens and durations together to a step of 1/16."""
    joint = copy.deepcopy(v3._model.joint).to(torch.bfloat16)
    torch.manual_seed(1)
    encoded, predicted = (torch.randn(1000, 1, 64, dtype=torch.bfloat16) for _ in range(2))

    def share_of_ties() -> float:
        with torch.inference_mode():
            best = joint.joint_after_projection(encoded, predicted)[..., -5:].float().topk(2).values
        return float((best[..., 0] == best[..., 1]).float().mean())

    ours = share_of_ties()
    joint.log_softmax = None  # as it is published
    assert share_of_ties() > 5 * ours
    assert ours < 0.01


def test_a_hybrid_archive_decodes_by_its_transducer(tmp_path: Path, samples: dict[str, Sample]) -> None:
    """It was refused as a model without durations, which it has."""
    hybrid = Parakeet(make("parakeet-tdt_ctc-110m", tmp_path, 256), device="cpu")
    assert type(hybrid._model).__name__ == "EncDecHybridRNNTCTCBPEModel"
    audio = samples["short"].audio()
    before = prefer(hybrid, np.arange(30, 40))
    tokens = hybrid.recognize([audio])[0].tokens
    hybrid._model.joint.joint_net[-1].bias.data = before
    assert tokens
    assert {token.id for token in tokens} <= set(range(30, 40))
    assert all(0 <= token.start <= token.end <= audio.duration for token in tokens)
