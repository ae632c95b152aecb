"""The engine on the real tiny model: every trap that NeMo sets, as a test."""

from __future__ import annotations

import dataclasses
import pickle
import subprocess
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import devices
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.cpu import int8
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.errors import StartupError
from parakeet_stt.text.alignment import join_tokens
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Hypothesis
from tests.conftest import ROOT, Sample


@pytest.fixture(scope="module")
def utterances(samples: dict[str, Sample]) -> list[Audio]:
    """Eight stretches of speech of different lengths, 1 to 12 seconds."""
    long = samples["two-minutes"].audio().samples
    starts = (0, 9, 17, 30, 44, 58, 71, 90)
    lengths = (3.0, 12.0, 1.0, 7.3, 5.01, 2.2, 9.9, 4.0)
    return [
        Audio(long[int(start * SAMPLE_RATE) : int((start + length) * SAMPLE_RATE)])
        for start, length in zip(starts, lengths, strict=True)
    ]


def same(one: Hypothesis, other: Hypothesis, *, tolerance: float = 1e-3) -> None:
    """Tokens and times identical, log-probabilities within the tolerance."""
    assert [(t.id, t.start, t.end) for t in one.tokens] == [(t.id, t.start, t.end) for t in other.tokens]
    assert [t.logprob for t in one.tokens] == pytest.approx([t.logprob for t in other.tokens], abs=tolerance)


def test_decoding_twice_gives_the_same_bytes(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    assert pickle.dumps(engine.recognize(utterances)) == pickle.dumps(engine.recognize(utterances))


def test_a_result_does_not_depend_on_its_batch_its_place_or_the_padding(
    engine: Parakeet, utterances: Sequence[Audio]
) -> None:
    alone = [engine.recognize([audio])[0] for audio in utterances]
    assert sum(len(hypothesis.tokens) for hypothesis in alone) > 100
    together = engine.recognize(utterances)
    backwards = engine.recognize(utterances[::-1])[::-1]
    silence = Audio(np.zeros(SAMPLE_RATE * 20, np.float32))
    beside_silence = [engine.recognize([silence, audio])[1] for audio in utterances]
    for expected, *others in zip(alone, together, backwards, beside_silence, strict=True):
        for other in others:
            same(expected, other)


@pytest.mark.skipif(int8.saturates(), reason="this processor's products in float32 depend on the size of the batch")
@pytest.mark.parametrize("precision", ["bfloat16", "int8"])
def test_few_bits_do_not_make_a_result_depend_on_its_batch(
    precision: devices.Precision, utterances: Sequence[Audio]
) -> None:
    """Where a last digit differs, rounding to 8 bits makes more of it at each layer: here 0.035 and 0.05, or a word."""
    engine = Parakeet(BUNDLED_FILE, device="cpu", precision=precision)
    silence = Audio(np.zeros(SAMPLE_RATE * 20, np.float32))
    for audio, together in zip(utterances, engine.recognize(utterances), strict=True):
        (alone,) = engine.recognize([audio])
        _, beside_silence = engine.recognize([silence, audio])
        for other in (together, beside_silence):
            same(alone, other, tolerance=1e-5)


def test_word_ends_in_a_batch_are_those_of_the_word_alone(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    for audio, batched in zip(utterances, engine.recognize(utterances), strict=True):
        (single,) = engine.recognize([audio])
        ends = [word.end for word in join_tokens(single.tokens, audio.duration)]
        assert [word.end for word in join_tokens(batched.tokens, audio.duration)] == ends
        assert len(ends) > 0


def test_nemos_own_batched_durations_would_be_wrong(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    """Why there is a scoring pass: the search stores a batch mate's duration. If this fails, NeMo has mended it."""
    computer = engine._model.decoding.decoding.decoding_computer
    computer.include_duration = True
    try:
        with torch.inference_mode():
            encoded, frames = engine._encode(utterances)
            found, _ = computer(x=encoded, out_len=frames)
    finally:
        computer.include_duration = False
    differing = total = 0
    for item, hypothesis in enumerate(engine.recognize(utterances)):
        stored = found.token_durations[item, : len(hypothesis.tokens)].tolist()
        ours = [round((token.end - token.start) / ENCODER_FRAME_SECONDS) for token in hypothesis.tokens]
        differing += sum(a != b for a, b in zip(stored[:-1], ours[:-1], strict=True))
        total += len(stored) - 1
    assert total > 100
    assert differing > 0


def test_recognizing_leaves_the_network_as_it_was(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    before = {name: tensor.clone() for name, tensor in engine._model.state_dict().items()}
    engine.recognize(utterances)
    assert not any(module.training for module in engine._model.modules())
    assert all(torch.equal(before[name], tensor) for name, tensor in engine._model.state_dict().items())


def test_times_lie_on_the_frame_grid_inside_the_audio_and_rise(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    for audio, hypothesis in zip(utterances, engine.recognize(utterances), strict=True):
        starts = [token.start for token in hypothesis.tokens]
        assert starts == sorted(starts)
        for token in hypothesis.tokens:
            assert 0 <= token.start <= token.end <= audio.duration
            assert token.start / ENCODER_FRAME_SECONDS == pytest.approx(round(token.start / ENCODER_FRAME_SECONDS))


def test_log_probabilities_are_those_of_the_network(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    """Against the joint network asked token by token, as the search asks it."""
    model, audio = engine._model, utterances[0]
    (hypothesis,) = engine.recognize([audio])
    with torch.inference_mode():
        encoded, _ = engine._encode([audio])
        state, last = None, None
        for token in hypothesis.tokens:
            output, state = model.decoder.predict(last, state, add_sos=False, batch_size=1)
            frame = round(token.start / ENCODER_FRAME_SECONDS)
            logits = model.joint.joint(encoded[:, frame : frame + 1], output)[0, 0, 0]
            expected = torch.log_softmax(logits[: -len(engine._durations)], -1)[token.id].item()
            assert token.logprob == pytest.approx(expected, abs=1e-4)
            last = torch.tensor([[token.id]])


def test_silence_and_the_shortest_audio_are_no_error(engine: Parakeet) -> None:
    batch = [Audio(np.zeros(SAMPLE_RATE, np.float32)), Audio(np.full(1600, 0.01, np.float32))]
    for audio, hypothesis in zip(batch, engine.recognize(batch), strict=True):
        assert all(token.end <= audio.duration for token in hypothesis.tokens)
    assert engine.recognize([]) == []


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8"])
def test_half_precision_hears_the_same_words(precision: str, engine: Parakeet, samples: dict[str, Sample]) -> None:
    half = Parakeet(BUNDLED_FILE, device="cpu", precision=precision)  # type: ignore[arg-type]
    audio = samples["short"].audio()
    assert half.precision == precision
    maps = Path("/proc/self/maps")
    assert not maps.exists() or str(BUNDLED_FILE) not in maps.read_text()
    assert str(next(half._model.encoder.parameters()).dtype) == f"torch.{precision.replace('int8', 'float32')}"
    assert next(half._model.joint.parameters()).dtype == torch.float32  # its steps are one row each
    (full,), (rounded,) = engine.recognize([audio]), half.recognize([audio])
    assert [token.id for token in rounded.tokens] == [token.id for token in full.tokens]


def test_a_file_that_is_no_model_is_refused_in_one_line(tmp_path: Path) -> None:
    broken = tmp_path / "broken.nemo"
    broken.write_bytes(b"not a model")
    with pytest.raises(StartupError) as refusal:
        Parakeet(broken, device="cpu")
    assert str(broken) in refusal.value.message
    assert "\n" not in refusal.value.message


def test_an_archive_without_weights_is_refused_in_one_line(tmp_path: Path) -> None:
    cut = tmp_path / "cut.nemo"
    with tarfile.open(BUNDLED_FILE) as whole, tarfile.open(cut, "w") as partial:
        for member in whole.getmembers():
            if not member.name.endswith(".ckpt"):
                partial.addfile(member, whole.extractfile(member))
    with pytest.raises(StartupError, match=r"cut\.nemo"):
        Parakeet(cut, device="cpu")


@pytest.mark.skipif(torch.cuda.is_available(), reason="says what happens where there is no GPU")
def test_a_gpu_that_is_not_there_is_named() -> None:
    with pytest.raises(StartupError, match="cuda"):
        Parakeet(BUNDLED_FILE, device="cuda")


def test_importing_the_detector_leaves_torch_its_threads() -> None:
    load = "import parakeet_stt.engines.silero_torch"
    code = f"import torch; torch.set_num_threads(3); {load}; print(torch.get_num_threads())"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, check=True).stdout
    assert printed.split() == [b"3"]


def test_the_bundled_model_is_small_and_warms_up(engine: Parakeet) -> None:
    assert BUNDLED_FILE.stat().st_size <= 12_000_000
    assert len((BUNDLED_FILE.parent / "vocabulary.txt").read_text().split()) >= 400
    engine.warm_up(2, 5.0)


def test_hypotheses_are_plain_values(engine: Parakeet, utterances: Sequence[Audio]) -> None:
    """No decoder state, no tensor hangs on a result: a kept transcript keeps nothing else alive."""
    (hypothesis,) = engine.recognize(utterances[:1])
    for token in hypothesis.tokens:
        assert {type(value) for value in dataclasses.astuple(token)} <= {int, float, str}
