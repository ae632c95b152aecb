"""The streaming diarizer, by its own chunks, against NeMo's streaming over the whole recording."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import soundfile
import torch
from omegaconf import OmegaConf

from parakeet_stt.audio import Audio, Samples
from parakeet_stt.engines import nemo_archive
from parakeet_stt.engines.catalogue import BUNDLED_FILE, DIARIZERS
from parakeet_stt.engines.diarizers import sortformer
from parakeet_stt.engines.diarizers.sortformer import Sortformer
from parakeet_stt.errors import StartupError
from parakeet_stt.protocols import FRAME_SAMPLES, SpeakerChunk

BUNDLED = DIARIZERS["sortformer-tiny"].bundled
assert BUNDLED is not None


@pytest.fixture(scope="module")
def diarizer() -> Sortformer:
    assert BUNDLED is not None
    return Sortformer(BUNDLED, device="cpu")


def chunks_of(diarizer: Sortformer, samples: Samples) -> list[tuple[Audio, int, int]]:
    """The chunks of a recording: audio, left context, right context."""
    layout, chunks = diarizer.layout, []
    for done in range(0, len(samples), layout.chunk):
        part = min(layout.chunk, len(samples) - done)
        right = min(layout.right_context, len(samples) - done - part)
        start = max(0, done - layout.left_context)
        chunks.append((Audio(samples[start : done + part + right]), done - start, right))
    return chunks


def diarize(diarizer: Sortformer, recordings: Sequence[Samples]) -> list[Any]:
    """Probabilities of each recording, their chunks going through together."""
    states: list[object] = [None] * len(recordings)
    found: list[list[Any]] = [[] for _ in recordings]
    chunks = [chunks_of(diarizer, samples) for samples in recordings]
    for number in range(max(map(len, chunks))):
        rows = [row for row, own in enumerate(chunks) if number < len(own)]
        batch = [SpeakerChunk(*chunks[row][number], states[row]) for row in rows]
        for row, result in zip(rows, diarizer.diarize(batch), strict=True):
            found[row].append(result.probabilities)
            states[row] = result.state
    return [np.concatenate(own) for own in found]


def noise(seconds: float, seed: int = 0) -> Samples:
    """Noise that comes and goes, so that the probabilities differ."""
    rng = np.random.default_rng(seed)
    samples = rng.standard_normal(int(seconds * 16_000)).astype(np.float32)
    loudness = np.repeat(rng.uniform(0, 0.3, len(samples) // 4000 + 1), 4000)[: len(samples)]
    return (samples * loudness).astype(np.float32)


@pytest.mark.parametrize("seconds", [3.21, 61.0, 2 * 340 * 0.08, 341 * 0.08 + 0.03])
def test_chunk_after_chunk_gives_what_nemo_gives_for_the_whole_recording(diarizer: Sortformer, seconds: float) -> None:
    assert BUNDLED is not None
    samples = noise(seconds)
    model = nemo_archive.restore(BUNDLED)
    parts = model.sortformer_modules
    parts.chunk_len, parts.chunk_left_context, parts.chunk_right_context = sortformer.CHUNK, 1, sortformer.RIGHT
    parts.fifo_len, parts.spkcache_update_period, parts.spkcache_len = sortformer.QUEUE, sortformer.UPDATE, 188
    model.streaming_mode = model.async_streaming = True
    model.preprocessor.featurizer.pad_to = 0
    with torch.inference_mode():
        lengths = torch.tensor([len(samples)])
        expected = model.eval()(audio_signal=torch.from_numpy(samples)[None], audio_signal_length=lengths)[0].numpy()
    (found,) = diarize(diarizer, [samples])
    assert len(found) == -(-len(samples) // 160 // 8)
    np.testing.assert_allclose(found, expected[: len(found)], atol=1e-5)


def test_a_result_does_not_depend_on_its_batch(diarizer: Sortformer) -> None:
    recordings = [noise(seconds, seed) for seed, seconds in enumerate((5.0, 70.0, 33.3, 58.0))]
    together = diarize(diarizer, recordings)
    for recording, found in zip(recordings, together, strict=True):
        (alone,) = diarize(diarizer, [recording])
        np.testing.assert_allclose(found, alone, atol=1e-5)


def test_memory_of_the_speakers_does_not_grow(diarizer: Sortformer) -> None:
    state: Any = None
    sizes = set()
    for audio, left, right in chunks_of(diarizer, noise(300)):
        state = diarizer.diarize([SpeakerChunk(audio, left, right, state)])[0].state
        sizes.add(len(state.cache) + len(state.queue))
    assert max(sizes) <= sortformer.CACHE + sortformer.QUEUE


def test_less_than_a_frame_of_the_spectrogram_is_nothing(diarizer: Sortformer) -> None:
    audio, before = noise(1.0), diarizer.diarize([SpeakerChunk(Audio(noise(1.0)), 0, 0, None)])[0].state
    short = SpeakerChunk(Audio(audio[: diarizer.layout.left_context + 100]), diarizer.layout.left_context, 0, before)
    (found,) = diarizer.diarize([short])
    assert found.probabilities.shape == (0, 4)
    assert found.state is before


def test_a_voice_is_alike_in_a_reference_and_in_a_conversation(diarizer: Sortformer) -> None:
    same = diarizer.layout.same_voice
    assert same is not None

    def voices_of(samples: Samples) -> Any:
        found = diarizer.diarize([SpeakerChunk(Audio(samples[: diarizer.layout.chunk]), 0, 0, None)])[0]
        assert found.voices is not None
        known = found.voices[found.voices.any(1)]
        return known / np.linalg.norm(known, axis=1, keepdims=True)

    def read(name: str) -> Samples:
        assert BUNDLED is not None
        samples: Samples = soundfile.read(BUNDLED.parent / "samples" / f"{name}.flac", dtype="float32")[0]
        return samples

    talk = voices_of(read("two-voices"))
    assert len(talk) == 2
    for name, expected in (("reference-one", [True, False]), ("reference-two", [False, True])):
        (reference,) = voices_of(read(name))
        assert (talk @ reference >= same).tolist() == expected
    (absent,) = voices_of(read("reference-absent"))
    assert (talk @ absent).max() < same
    assert len(voices_of(noise(0.4))) == 0


@pytest.mark.parametrize("damage", [{"same": None}, {"mean": "AAAA"}, {"axes": None}])
def test_a_space_of_voices_that_is_none_is_told_at_the_start(tmp_path: Path, damage: dict[str, str | None]) -> None:
    assert BUNDLED is not None
    model = nemo_archive.restore(BUNDLED)
    for name, value in damage.items():
        OmegaConf.update(model.cfg, f"voices.{name}", value)
    model.save_to(str(tmp_path / "damaged.nemo"))
    with pytest.raises(StartupError, match="space of voices"):
        Sortformer(tmp_path / "damaged.nemo", device="cpu")


def test_it_is_on_the_recognizers_grid(diarizer: Sortformer) -> None:
    layout = diarizer.layout
    assert layout.speakers == 4
    assert not any(part % FRAME_SAMPLES for part in (layout.chunk, layout.left_context, layout.right_context))


def test_a_recognizer_is_no_diarizer(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="STT_DIARIZER"):
        Sortformer(BUNDLED_FILE, device="cpu")
    (tmp_path / "broken.nemo").write_bytes(b"nothing")
    with pytest.raises(StartupError, match="can't be loaded"):
        Sortformer(tmp_path / "broken.nemo", device="cpu")
