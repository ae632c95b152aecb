"""Runs over a real Ray of two cores, with a recognizer that answers at once: each recording once, whatever happens."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import ray
import soundfile

from parakeet_stt.bulk import pipeline
from parakeet_stt.bulk.pipeline import Actors, TooManyFailures, Totals
from parakeet_stt.bulk.run import BulkRun
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.server.settings import Settings
from scripts.bench.bulk.stand_in import LoadStandIn
from tests.conftest import Sample


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    pipeline.connect(cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def spoken(samples: dict[str, Sample]) -> np.ndarray:
    return samples["two-minutes"].audio().samples


class Watch:
    """Remembers what a run says."""

    def __init__(self) -> None:
        self.finished, self.counted = 0, 0

    def begin(self, finished: int, actors: Actors) -> None:
        self.finished = finished
        assert actors == Actors(1, 1)

    def count(self, recordings: int) -> None:
        self.counted = recordings

    def advance(self, totals: Totals) -> None:
        assert totals.transcribed + totals.failed > 0


def run(folder: Path, out: Path, *, max_failures: float = 1.0) -> tuple[Totals, Watch]:
    watch = Watch()
    work = BulkRun(
        str(folder), str(out), max_failures=max_failures, subtitles=("vtt",), load=LoadStandIn(),
        settings=BulkSettings.of(Settings()),
    )  # fmt: skip
    return work.execute(watch), watch


def names(out: Path, table: str) -> list[str]:
    found: list[str] = pq.read_table(out / table, columns=["recording"])["recording"].to_pylist()
    return sorted(found)


def test_each_recording_has_a_row_once_however_often_it_is_started(tmp_path: Path, spoken: np.ndarray) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    soundfile.write(folder / "long.wav", np.tile(spoken, 5), 16_000)  # of three parts
    for number in range(40):
        soundfile.write(folder / f"{number:02}.wav", spoken[16_000 * number :][: 16_000 * (1 + number % 3)], 16_000)
    (folder / "bad.mp3").write_bytes(b"no audio")
    good = sorted(["long.wav", *(f"{number:02}.wav" for number in range(40))])

    totals, watch = run(folder, out)
    assert (totals.transcribed, totals.failed, watch.counted) == (41, 1, 42)
    assert names(out, "transcripts") == good
    assert names(out, "errors") == ["bad.mp3"]
    rows = {row["recording"]: row for row in pq.read_table(out / "transcripts").to_pylist()}
    assert rows["long.wav"]["duration"] == pytest.approx(5 * len(spoken) / 16_000, abs=0.001)
    starts = [word["start"] for word in rows["long.wav"]["words"]]
    assert starts == sorted(starts)
    assert starts[-1] > 4.5 * len(spoken) / 16_000
    assert (folder / "00.wav.vtt").read_text().startswith("WEBVTT\n\n00:")

    assert run(folder, out)[0] == Totals()
    (folder / "new.wav").write_bytes((folder / "05.wav").read_bytes())
    totals, watch = run(folder, out)
    assert (totals.transcribed, totals.failed, watch.finished, watch.counted) == (1, 0, 42, 1)
    assert names(out, "transcripts") == sorted([*good, "new.wav"])


def test_too_many_failures_stop_a_run_and_what_was_done_stays(tmp_path: Path, spoken: np.ndarray) -> None:
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    soundfile.write(folder / "good.wav", spoken[:32_000], 16_000)
    (folder / "bad.wav").write_bytes(b"no audio")
    with pytest.raises(TooManyFailures, match=r"1 of 2 recordings have no transcript, more than a share of 0\.4"):
        run(folder, out, max_failures=0.4)
    assert names(out, "transcripts") == ["good.wav"]
    assert names(out, "errors") == ["bad.wav"]
