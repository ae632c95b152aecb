"""Files decoded in processes of their own: the same sound, and no file that harms anything but its own request."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.errors import AudioTooLong, AudioTooShort, UndecodableAudio
from parakeet_stt.media import pool as media
from parakeet_stt.media.demux import decode
from parakeet_stt.media.pool import MediaReader, WorkerPool
from parakeet_stt.media.threads import CpuSlots
from tests.conftest import Sample, encode
from tests.trapped_decoder import TRAPS, trap

PATIENCE = 20.0  # seconds; a loaded machine


@pytest.fixture(scope="module")
def decoders() -> Iterator[WorkerPool]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(media, "PROGRAM", (sys.executable, "-m", "tests.trapped_decoder"))
        made = WorkerPool()
        yield made
        made.close()


def processes(decoders: WorkerPool) -> set[int]:
    """The one that forks decoders, and the decoders."""
    program = psutil.Process(decoders._process.pid)
    return {program.pid, *(one.pid for one in program.children())}


def eventually(is_so: Any) -> bool:
    deadline = time.monotonic() + PATIENCE
    while not is_so() and time.monotonic() < deadline:
        time.sleep(0.05)
    return bool(is_so())


class Reading:
    """A file that is read by one thread, and the crashes that were counted."""

    def __init__(self, decoders: WorkerPool, source: BinaryIO, *, max_seconds: float = 100) -> None:
        self.crashes = 0
        self.source = source
        self.slots = CpuSlots(1)
        self.media = MediaReader(source, decoders, self.slots, max_seconds=max_seconds, on_crash=self.count)

    def count(self) -> None:
        self.crashes += 1

    def all(self) -> Samples:
        try:
            with self.slots.computing():
                return np.concatenate(list(self.media))
        finally:
            self.close()

    def close(self) -> None:
        self.media.close()
        self.source.close()


def on_disk(data: bytes) -> BinaryIO:
    file = tempfile.SpooledTemporaryFile(max_size=1 << 20)  # noqa: SIM115  # as Starlette's uploads are
    file.write(data)
    file.seek(0)
    return file  # type: ignore[return-value]


@pytest.mark.parametrize(("container", "codec", "rate"), [("wav", "pcm_s16le", 16_000), ("flac", "flac", 44_100),
                                                          ("mp3", "libmp3lame", 48_000)])  # fmt: skip
def test_the_sound_is_the_same_as_without_another_process(
    container: str, codec: str, rate: int, decoders: WorkerPool, samples: dict[str, Sample]
) -> None:
    data = encode(samples["two-minutes"].audio().samples, container=container, codec=codec, rate=rate)
    reading = Reading(decoders, on_disk(data), max_seconds=1000)
    assert np.array_equal(reading.all(), decode(io.BytesIO(data), max_seconds=1000).samples)
    assert not reading.media.is_truncated
    assert reading.crashes == 0


def test_what_is_wrong_with_a_file_is_told_from_one_process_to_the_other(
    decoders: WorkerPool, samples: dict[str, Sample]
) -> None:
    good = samples["short"].path.read_bytes()
    with pytest.raises(UndecodableAudio, match="empty"):
        Reading(decoders, on_disk(b"")).all()
    with pytest.raises(UndecodableAudio, match="damaged, or not a media file"):
        Reading(decoders, on_disk(b"no sound" * 100)).all()
    with pytest.raises(AudioTooLong, match="longer than the limit of 2 seconds"):
        Reading(decoders, on_disk(good), max_seconds=2).all()
    tenth = encode(np.zeros(SAMPLE_RATE // 20, np.float32), container="wav", codec="pcm_s16le", rate=16_000)
    with pytest.raises(AudioTooShort):
        Reading(decoders, on_disk(tenth)).all()
    cut = Reading(decoders, on_disk(good[: len(good) // 2]))
    cut.all()
    assert cut.media.is_truncated


@pytest.mark.parametrize("name", TRAPS)
def test_a_file_that_its_decoder_does_not_survive_is_refused_and_the_next_is_decoded(
    name: str, decoders: WorkerPool, samples: dict[str, Sample]
) -> None:
    reading = Reading(decoders, on_disk(trap(name)))
    began = time.monotonic()
    with pytest.raises(UndecodableAudio, match="crashed, or took too much time or memory"):
        reading.all()
    assert time.monotonic() - began < PATIENCE
    assert reading.crashes == 1
    assert len(Reading(decoders, samples["short"].path.open("rb")).all()) > SAMPLE_RATE


def test_a_decoder_is_kept_for_other_files_but_not_for_ever(
    decoders: WorkerPool, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    Reading(decoders, samples["short"].path.open("rb")).all()
    before = processes(decoders)
    for _ in range(3):
        Reading(decoders, samples["short"].path.open("rb")).all()
    assert processes(decoders) <= before  # some of them may still be on their way out
    monkeypatch.setattr(media, "MAX_FILES", 1)
    for _ in range(20):
        Reading(decoders, samples["short"].path.open("rb")).all()
    assert eventually(lambda: not before & processes(decoders) - {decoders._process.pid})


def test_whoever_leaves_ends_the_decoder_and_frees_the_thread_that_waits_for_it(decoders: WorkerPool) -> None:
    before = processes(decoders)
    reading = Reading(decoders, on_disk(trap("sleep")))
    errors: list[BaseException] = []

    def read() -> None:
        try:
            reading.all()
        except UndecodableAudio as exc:
            errors.append(exc)

    thread = threading.Thread(target=read)
    thread.start()
    time.sleep(0.3)
    reading.media.cancel()
    thread.join(1)
    assert not thread.is_alive()
    assert errors
    assert reading.crashes == 0
    assert eventually(lambda: processes(decoders) <= before)


def test_a_recording_that_is_read_slowly_holds_nobody_up_and_is_not_taken_for_stalled(
    decoders: WorkerPool, samples: dict[str, Sample]
) -> None:
    slow = Reading(decoders, samples["two-minutes"].path.open("rb"), max_seconds=1000)
    with slow.slots.computing():
        first = next(slow.media)
    time.sleep(3)  # more than the 2 s of a stalled decoder here
    assert len(Reading(decoders, samples["short"].path.open("rb")).all()) > SAMPLE_RATE
    assert len(first) + len(slow.all()) == len(samples["two-minutes"].audio().samples)


def test_the_process_that_forks_decoders_is_started_again(decoders: WorkerPool, samples: dict[str, Sample]) -> None:
    os.kill(decoders._process.pid, signal.SIGKILL)
    decoders._process.wait()
    while decoders._idle:
        decoders._idle.pop().close()
    assert len(Reading(decoders, samples["short"].path.open("rb")).all()) > SAMPLE_RATE


def test_nothing_is_left_of_them_when_the_service_ends(samples: dict[str, Sample]) -> None:
    made = WorkerPool()
    Reading(made, samples["short"].path.open("rb")).all()
    half_read = Reading(made, samples["two-minutes"].path.open("rb"))
    with half_read.slots.computing():
        next(half_read.media)
    running = processes(made)
    assert len(running) == 2
    made.close()
    half_read.close()
    assert eventually(lambda: not any(map(psutil.pid_exists, running)))


def test_a_decoder_has_none_of_the_models_libraries_in_it() -> None:
    program = "import sys, parakeet_stt.media.worker; sys.exit(bool({'torch', 'nemo', 'bentoml'} & set(sys.modules)))"
    assert subprocess.run([sys.executable, "-c", program], cwd=Path(__file__).parents[2]).returncode == 0
