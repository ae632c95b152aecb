"""NeMo Curator's speech recognition stage with this project's engine: the same text as the service's.

    pip install nemo-curator 'parakeet-stt[engine,bulk]'
    python examples/curator.py recording.flac ...

Curator's `ASRStage` (of 1.4) hosts any class with the four methods below, in an actor a GPU of its executors on Ray; in
a YAML pipeline it is `adapter_target: curator.ParakeetAdapter`. Utterances of a whole batch are decoded together.
`extras` has the words with their times.
"""

from __future__ import annotations

import argparse
import json
from typing import Any

import numpy as np
import soundfile

from parakeet_stt.audio import SAMPLE_RATE, AudioBuffer, Samples
from parakeet_stt.bulk.entries import Entry
from parakeet_stt.bulk.parts import End, Part
from parakeet_stt.bulk.recognition import load_decoder
from parakeet_stt.bulk.rows import make_rows
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.offline.utterances import Utterances, read_utterances
from parakeet_stt.server.files.spoken_language import LanguageDetector
from parakeet_stt.server.settings import Settings


class ParakeetAdapter:
    """An `ASRAdapter` of Curator's. model_id: as STT_MODEL takes it; empty for the bundled tiny model."""

    def __init__(self, model_id: str) -> None:
        self.model_id = model_id
        self._settings = BulkSettings.of(Settings.model_validate({"STT_MODEL": model_id or None}))

    def download_weights_on_node(self) -> None:
        """Nothing is downloaded at run time: raises StartupError, saying what to do, if the weights are not here."""
        self._settings.find_model()

    def load_model(self, *, num_gpus: int) -> None:
        """Load the engine: on the GPU that Ray gives to this actor, if there is one."""
        self._decoder = load_decoder(self._settings)
        self._detector = OnnxDetector()
        self._languages = self._settings.find_model().languages

    def unload_model(self) -> None:
        """Free the engine."""
        del self._decoder

    def transcribe_batch(self, items: list[dict[str, Any]]) -> list[Any]:
        """A result for each item, in order. Of an item `waveform` is read: mono 16 kHz, float32."""
        from nemo_curator.models.asr.base import ASRResult

        parts = [self._cut(str(number), item["waveform"]) for number, item in enumerate(items)]
        rows = make_rows(
            [[part] for part in self._decoder.decode(parts)],
            languages=self._languages,
            detect_language=LanguageDetector(self._languages).detect,
            onset=self._settings.rules.onset,
        )
        found = {row["key"]: ASRResult(row["text"], extras={"words": row["words"]}) for row in rows.transcripts}
        failed = {row["key"]: ASRResult("", skipped=True, skip_reason=row["code"]) for row in rows.errors}
        return [(found | failed)[str(number)] for number in range(len(items))]

    def _cut(self, key: str, samples: Samples) -> Part:
        stream, audio = DetectorStream(self._detector), AudioBuffer()
        audio.append(samples)
        probabilities = np.concatenate([stream.push(samples), stream.flush()])
        utterances = Utterances(audio, rules=self._settings.rules, longest=self._settings.max_utterance_seconds)
        cut = tuple(read_utterances(utterances, iter([probabilities])))
        return Part(Entry(key, key, key), 0, cut, probabilities, End(len(samples) / SAMPLE_RATE, False))


def main() -> None:
    """Run Curator's stage over some files."""
    from nemo_curator.stages.audio.inference.asr.stage import ASRStage
    from nemo_curator.stages.resources import Resources
    from nemo_curator.tasks import AudioTask

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+")
    stage = ASRStage(
        adapter_target=f"{ParakeetAdapter.__module__}.ParakeetAdapter", model_id="", extras_key="asr",
        waveform_key="waveform", resources=Resources(cpus=1.0),
    )  # fmt: skip
    stage.setup()
    tasks = []
    for name in parser.parse_args().files:
        samples, rate = soundfile.read(name, dtype="float32")
        tasks.append(AudioTask(data={"audio_filepath": name, "waveform": samples.T, "sampling_rate": rate}))
    for task in stage.process_batch(tasks):
        print(json.dumps(dict(task.data)))
    stage.teardown()


if __name__ == "__main__":
    main()
