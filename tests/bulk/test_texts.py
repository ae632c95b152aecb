"""The rows of an archive are what the service answers for the same files, byte for byte."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from parakeet_stt.bulk.entries import Shard, read_entries
from parakeet_stt.bulk.parts import (
    DecodedPart,
    Gathering,
    Maker,
    from_decoded_table,
    from_table,
    to_decoded_table,
    to_table,
)
from parakeet_stt.bulk.reading import PART_SECONDS, Reader
from parakeet_stt.bulk.recognition import PartDecoder
from parakeet_stt.bulk.rows import make_rows
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.server.settings import Settings
from tests.conftest import ROOT, Sample, Server, encode

MAKER = Maker("tiny", {"source": "1", "lock": "2", "model": "3"})


@pytest.fixture(scope="module")
def settings() -> BulkSettings:
    return BulkSettings.of(Settings())


@pytest.fixture(scope="module")
def reader(settings: BulkSettings) -> Iterator[Reader]:
    with closing(Reader(settings, make_filter=make_filter)) as made:
        yield made


@pytest.fixture(scope="module")
def decoder(engine: Parakeet, settings: BulkSettings) -> PartDecoder:
    return PartDecoder(engine, settings, MAKER)


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Sample]) -> Path:
    """Every sample of the repository; one of them in another rate, in stereo; one that is cut off; one that is bad."""
    folder = tmp_path_factory.mktemp("archive")
    for path in ROOT.glob("models/*/samples/*.flac"):
        (folder / path.name).symlink_to(path)
    spoken = samples["two-sentences"].audio().samples
    (folder / "stereo.mp3").write_bytes(
        encode(spoken, container="mp3", codec="libmp3lame", rate=44_100, layout="stereo")
    )
    (folder / "cut.wav").write_bytes(encode(spoken, container="wav", codec="pcm_s16le", rate=22_050)[:-40_000])
    (folder / "bad.ogg").write_bytes(b"OggS" + bytes(range(256)))
    return folder


def transcribe(archive: Path, reader: Reader, decoder: PartDecoder, settings: BulkSettings) -> Any:
    """All of it, as over Ray: parts as tables, of many recordings together, which come back in any order."""
    parts = [part for entry in read_entries(str(archive), Shard()) for part in reader.read(entry)]
    decoded: list[DecodedPart] = []
    for first in range(0, len(parts), 5):
        decoded += decoder.decode(list(from_table(to_table(parts[first : first + 5]))))
    gathering = Gathering(set())
    back = reversed(list(from_decoded_table(to_decoded_table(decoded))))
    complete = [found for part in back if (found := gathering.add(part))]
    return make_rows(
        complete,
        languages=("en",),
        detect_language=lambda _: None,
        onset=settings.rules.onset,
        subtitles=("srt", "vtt"),
    )


def near(value: Any) -> Any:
    return pytest.approx(value, abs=1e-4)


def ask(server: Server, path: Path, response_format: str, **fields: Any) -> httpx.Response:
    return httpx.post(
        f"{server.openai_url}/audio/transcriptions", timeout=120, files={"file": path.read_bytes()},
        data={"model": "whisper-1", "response_format": response_format, **fields},
    )  # fmt: skip


def test_rows_are_what_the_service_answers(
    archive: Path, reader: Reader, decoder: PartDecoder, settings: BulkSettings, server: Server,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.setattr("parakeet_stt.bulk.reading.PART_SECONDS", 20.0)  # long recordings come in several parts
    rows = transcribe(archive, reader, decoder, settings)
    assert {row["recording"] for row in rows.transcripts} == {path.name for path in archive.iterdir()} - {"bad.ogg"}
    for row in rows.transcripts:
        path = Path(row["source"])
        verbose = ask(server, path, "verbose_json", **{"timestamp_granularities[]": ["word", "segment"]}).json()
        assert row["text"] == verbose["text"], path
        assert row["duration"] == verbose["duration"]
        assert row["words"] == verbose["words"]
        # Probabilities differ in the seventh digit by what else is in the batch.
        assert row["segments"] == [
            {**{name: one[name] for name in ("start", "end", "text")}, "avg_logprob": near(one["avg_logprob"])}
            for one in verbose["segments"]
        ]
        logprobs = ask(server, path, "json", **{"include[]": "logprobs"}).json()["logprobs"]
        assert [one["token"] for one in row["logprobs"]] == [one["token"] for one in logprobs]
        assert [one["logprob"] for one in row["logprobs"]] == near([one["logprob"] for one in logprobs])
        assert row["truncated"] == (path.name == "cut.wav")
        assert (row["model"], row["code_sha256"], row["lock_sha256"], row["model_sha256"]) == ("tiny", "1", "2", "3")
        assert 0 < row["speech_seconds"] <= row["duration"]
        assert row["rtfx"] > 0
    path = archive / "two-voices.flac"
    for one in ("srt", "vtt"):
        assert rows.subtitles[str(path)][one] == ask(server, path, one).text
    refused = ask(server, archive / "bad.ogg", "json").json()["error"]
    [error] = rows.errors
    assert (error["recording"], error["code"], error["reason"]) == ("bad.ogg", refused["code"], refused["message"])


def test_a_part_of_a_file_has_its_own_words_only(
    tmp_path: Path, samples: dict[str, Sample], reader: Reader, decoder: PartDecoder, settings: BulkSettings
) -> None:
    sample = samples["two-sentences"]
    second = next(word["start"] for word in sample.words if word["word"] == "Your")
    entries = [
        {"audio_filepath": str(sample.path), "offset": second - 0.1, "duration": 60, "id": "second"},
        {
            "audio_filepath": str(sample.path),
            "offset": 0,
            "duration": 1.23,
            "id": "whole: NeMo's durations are rounded",
        },
    ]
    manifest = tmp_path / "manifest.jsonl"
    manifest.write_text("\n".join(map(json.dumps, entries)))
    rows = {row["recording"]: row for row in transcribe(manifest, reader, decoder, settings).transcripts}
    assert rows["second"]["text"].startswith("Your father")
    assert rows["second"]["words"][0]["start"] == pytest.approx(second, abs=0.3)
    assert rows["whole: NeMo's durations are rounded"]["text"].startswith("The number")


def test_a_long_recording_comes_in_parts_that_hold_no_more_than_minutes(
    tmp_path: Path, samples: dict[str, Sample], reader: Reader, settings: BulkSettings
) -> None:
    long = tmp_path / "long.wav"
    spoken = samples["two-minutes"].audio().samples
    soundfile.write(long, np.tile(spoken, 8), 16_000)
    [entry] = read_entries(str(long), Shard())
    parts = list(reader.read(entry))
    assert [part.number for part in parts] == list(range(len(parts)))
    assert len(parts) > 1
    assert [part.end is not None for part in parts] == [False] * (len(parts) - 1) + [True]
    assert all(part.seconds < PART_SECONDS + settings.max_utterance_seconds for part in parts)
    assert sum(len(part.probabilities) for part in parts) == -(-len(spoken) * 8 // 512)
