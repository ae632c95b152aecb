"""Runs over a real Ray of two cores, with a recognizer that answers at once: each recording once, whatever happens."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pyarrow.parquet as pq
import pytest
import ray
import soundfile

from parakeet_stt.audio import Audio
from parakeet_stt.bulk import losses, pipeline
from parakeet_stt.bulk.parts import DecodedPart, Maker, Part
from parakeet_stt.bulk.pipeline import Actors, TooManyFailures, Totals
from parakeet_stt.bulk.recognition import PartDecoder
from parakeet_stt.bulk.run import BulkRun
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.errors import DeviceLost, StartupError
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from scripts.bench.bulk.stand_in import LoadStandIn, StandIn
from tests.conftest import Sample


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    pipeline.connect(cpus=2)
    yield
    ray.shutdown()


@pytest.fixture(scope="module")
def spoken(samples: dict[str, Sample]) -> np.ndarray:
    return samples["two-minutes"].audio().samples


PLAIN, DEADLY = 0.5, 0.9  # highest samples of a recording


class Mortal(StandIn):
    """Ends with some recordings: as a device that fails, or alone with them as a process that is killed."""

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        peak = max((float(abs(audio.samples).max()) for audio in batch), default=0)
        if peak > (PLAIN + DEADLY) / 2:
            if len(batch) > 1:
                raise DeviceLost("the device is gone")
            os.kill(os.getpid(), signal.SIGKILL)
        return super().recognize(batch, phrases)


@dataclass(frozen=True, slots=True)
class LoadMortal:
    def __call__(self, settings: BulkSettings) -> PartDecoder:
        return PartDecoder(Mortal(), settings, Maker("mortal", {}))


@dataclass(frozen=True, slots=True)
class LoadTelling:
    """Makes a file once something is decoded."""

    path: Path

    def __call__(self, settings: BulkSettings) -> PartDecoder:
        path = self.path

        class Telling(PartDecoder):
            def decode(self, parts: Sequence[Part]) -> list[DecodedPart]:
                path.touch()
                return super().decode(parts)

        return Telling(StandIn(), settings, Maker("telling", {}))


@contextmanager
def readers_are_killed(path: Path, *, after: Path | None = None, times: int | None = None) -> Iterator[list[int]]:
    """End whichever reading task has this file open, once `after` is there, so often; the tasks' processes."""
    is_over, killed = threading.Event(), list[int]()

    def kill() -> None:
        while not is_over.wait(0.05) and (times is None or len(killed) < times):
            for process in psutil.Process().children(recursive=True) if after is None or after.exists() else ():
                try:
                    if "(_read)" in " ".join(process.cmdline()) and str(path) in [
                        one.path for one in process.open_files()
                    ]:
                        process.kill()
                        killed.append(process.pid)
                except psutil.Error:
                    continue

    killer = threading.Thread(target=kill)
    killer.start()
    yield killed
    is_over.set()
    killer.join()


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


def run(
    folder: Path, out: Path, *, max_failures: float = 1.0,
    load: Callable[[BulkSettings], PartDecoder] | None = None, watch: Watch | None = None,
) -> tuple[Totals, Watch]:  # fmt: skip
    watch = watch or Watch()
    work = BulkRun(
        str(folder), str(out), max_failures=max_failures, subtitles=("vtt",), load=load or LoadStandIn(),
        settings=BulkSettings.of(Settings()),
    )  # fmt: skip
    return work.execute(watch), watch


def names(out: Path, table: str) -> list[str]:
    found: list[str] = pq.read_table(out / table, columns=["recording"])["recording"].to_pylist()
    return sorted(found)


def test_each_recording_has_a_row_once_however_often_it_is_started_and_too_many_failures_stop_a_run(
    tmp_path: Path, spoken: np.ndarray
) -> None:
    """In one test, since each run starts processes for ten seconds and more."""
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
    (folder / "bad.wav").write_bytes(b"no audio")
    with pytest.raises(TooManyFailures, match=r"1 of 2 recordings have no transcript, more than a share of 0\.4"):
        run(folder, out, max_failures=0.4, watch=(watch := Watch()))
    assert (watch.finished, watch.counted) == (42, 2)
    assert names(out, "transcripts") == sorted([*good, "new.wav"])
    assert names(out, "errors") == ["bad.mp3", "bad.wav"]


def test_a_recording_that_ends_its_process_each_time_is_an_error_and_all_others_are_transcribed(
    tmp_path: Path, spoken: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(losses, "MAX_LOSSES", 1)  # each takes some seconds
    folder, out = tmp_path / "in", tmp_path / "out"
    folder.mkdir()
    clip = spoken[:48_000] / abs(spoken[:48_000]).max()
    for number in range(6):
        soundfile.write(folder / f"{number}.wav", clip * PLAIN, 16_000)
    soundfile.write(folder / "2-deadly.wav", clip * DEADLY, 16_000)
    soundfile.write(folder / "4-unreadable.wav", spoken * PLAIN, 16_000)

    with readers_are_killed(folder / "4-unreadable.wav"):
        totals, _ = run(folder, out, load=LoadMortal())
    assert (totals.transcribed, totals.failed) == (6, 2)
    assert names(out, "transcripts") == [f"{number}.wav" for number in range(6)]
    errors = {row["recording"]: row for row in pq.read_table(out / "errors").to_pylist()}
    for name, verb in (("2-deadly.wav", "decoded"), ("4-unreadable.wav", "read")):
        error = errors.pop(name)
        assert error["code"] == "server_error"
        assert f"process that {verb} this recording, and no other beside it, has ended 1 times" in error["reason"]
    assert not errors


def test_a_recording_whose_reader_ends_after_its_first_parts_are_decoded_is_whole(
    tmp_path: Path, spoken: np.ndarray
) -> None:
    folder = tmp_path / "in"
    folder.mkdir()
    soundfile.write(folder / "long.flac", np.tile(spoken, 25), 16_000)  # of 80 MB between a reader and an actor
    run(folder, tmp_path / "undisturbed")
    begun = tmp_path / "begun"
    with readers_are_killed(folder / "long.flac", after=begun, times=1) as killed:
        totals, _ = run(folder, tmp_path / "out", load=LoadTelling(begun))
    assert len(killed) == 1
    assert (totals.transcribed, totals.failed) == (1, 0)
    (row,), (expected,) = (pq.read_table(tmp_path / at / "transcripts").to_pylist() for at in ("out", "undisturbed"))
    for name in ("text", "words", "segments", "duration", "speech_seconds", "truncated"):
        assert row[name] == expected[name], name


@pytest.mark.parametrize(
    ("cores", "gpus", "threads", "count", "expected"),
    [
        ([2], 0, 0, 0, Actors(1, 1)),
        ([8], 0, 0, 0, Actors(2, 3)),
        ([4, 16], 0, 0, 0, Actors(5, 3)),
        ([6], 0, 0, 2, Actors(2, 2)),  # with three threads each there would be no core for reading
        ([2], 0, 2, 0, Actors(1, 1)),  # as with the threads of a service that has the machine to itself
        ([8], 0, 4, 2, Actors(2, 3)),
        ([7, 7], 0, 3, 9, Actors(9, 1)),  # with three threads each only four would start
        ([64], 8, 0, 0, Actors(8, 1, 1)),
    ],
)
def test_recognizers_leave_a_core_for_reading(
    cores: list[int], gpus: int, threads: int, count: int, expected: Actors
) -> None:
    assert Actors.for_machines(cores, gpus, threads, count) == expected


@pytest.mark.parametrize(("cores", "gpus", "count"), [([1], 0, 0), ([2], 0, 2), ([4, 4], 0, 9), ([8], 8, 0)])
def test_a_run_without_a_core_for_reading_does_not_begin(cores: list[int], gpus: int, count: int) -> None:
    with pytest.raises(StartupError, match=f"none of {sum(cores)} cores"):
        Actors.for_machines(cores, gpus, 0, count)


def test_counts_that_are_lost_themselves_begin_again() -> None:
    counted = losses.Losses()
    with counted.holding("work") as lost:
        assert lost == 0
        ray.kill(counted._counts, no_restart=False)
    for _ in range(2):
        with counted.holding("work") as lost:
            assert lost == 0
    with suppress(ZeroDivisionError), counted.holding("work"):
        raise ZeroDivisionError
    with counted.holding("work") as lost:
        assert lost == 1
