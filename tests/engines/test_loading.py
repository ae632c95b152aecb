"""One place chooses the engine, and what it gives crosses as values."""

from __future__ import annotations

import pickle
import tarfile

from parakeet_stt.audio import Audio
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.loading import EngineSettings, load
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk
from tests.conftest import Sample


def test_the_bundled_model_is_loaded_and_on_a_cpu_without_a_detector() -> None:
    engine = load(BUNDLED_FILE, EngineSettings(device="cpu", precision="float32"))
    assert (engine.recognizer.device, engine.recognizer.precision) == ("cpu", "float32")
    assert engine.recognizer.frame_samples == FRAME_SAMPLES
    assert engine.recognizer.capacity_seconds() is None
    assert "EncDecRNNTBPEModel" in engine.recognizer.config
    assert engine.detector is None  # media workers and fronts detect


def test_a_chunk_and_its_result_may_cross_to_another_process(engine: Parakeet, samples: dict[str, Sample]) -> None:
    audio = samples["short"].audio().samples
    half = 24 * FRAME_SAMPLES
    first = Chunk(Audio(audio[: half + 8 * FRAME_SAMPLES]), 0, 8 * FRAME_SAMPLES, None)
    (found,) = engine.decode_chunks([first])
    (again,) = engine.decode_chunks([pickle.loads(pickle.dumps(first))])
    assert list(again.stable) == list(found.stable)
    crossed = pickle.loads(pickle.dumps(found))
    results = [engine.decode_chunks([Chunk(Audio(audio), half, 0, one.state)])[0] for one in (found, crossed)]
    assert list(results[0].stable) == list(results[1].stable)
    assert len(results[0].stable)


def test_the_bundled_archive_names_no_folder_of_the_machine_that_made_it() -> None:
    content = BUNDLED_FILE.read_bytes()
    assert not [folder for folder in (b"/work/", b"/home/", b"/tmp/", b"/root/") if folder in content]
    with tarfile.open(BUNDLED_FILE) as archive:
        (config,) = [archive.extractfile(one) for one in archive if one.name.endswith("model_config.yaml")]
        assert config is not None
        assert "dir: tokenizer" in config.read().decode()
