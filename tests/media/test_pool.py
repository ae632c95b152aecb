"""Files decoded in processes of their own: the same sound, block by block, by workers that serve many files."""

from __future__ import annotations

import asyncio
import io
import os
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from pathlib import Path

import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.errors import AudioTooLong, AudioTooShort, Overloaded, UndecodableAudio
from parakeet_stt.ipc.shared_audio import SAMPLE_BYTES
from parakeet_stt.media import pool as pool_module
from parakeet_stt.media.demux import decode
from parakeet_stt.media.messages import WORKER_BYTES
from parakeet_stt.media.pool import WorkerPool
from parakeet_stt.media.worker import BLOCK_SAMPLES, FIRST_BLOCK_SAMPLES
from parakeet_stt.vad import Probabilities
from tests.conftest import ROOT, Sample, encode
from tests.media.readers import Media, Reading, descriptors, running_media, soon
from tests.media.tones import pcm, wav
from tests.services.trapped_decoder import trap

DECODE = """
import io, sys
from pathlib import Path
from parakeet_stt.media.demux import decode
from parakeet_stt.media.filters import find_filter
source = io.BytesIO(sys.stdin.buffer.read())
found = decode(source, max_seconds=1000, make_filter=lambda rate: find_filter(Path(sys.argv[1]), rate).weights)
sys.stdout.buffer.write(found.samples.tobytes())
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Media]:
    with running_media(tmp_path_factory.mktemp("media")) as running:
        yield running


@pytest.fixture(scope="module")
def detector() -> OnnxDetector:
    return OnnxDetector()


@pytest.fixture(scope="module")
def two_minutes(samples: dict[str, Sample]) -> Samples:
    return samples["two-minutes"].audio().samples


def decoded(data: bytes) -> Samples:
    return decode(io.BytesIO(data), max_seconds=1000, make_filter=make_filter).samples


def decoded_by_one_thread(data: bytes, filters: Path) -> Samples:
    """As `decoded`; OpenBLAS gives other last bits with more threads. filters: a folder with the file's filter."""
    program = [sys.executable, "-c", DECODE, str(filters)]
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}
    printed = subprocess.run(program, cwd=ROOT, env=environment, input=data, capture_output=True, check=True)
    return np.frombuffer(printed.stdout, np.float32)


def detected(samples: Samples, detector: OnnxDetector) -> Probabilities:
    stream = DetectorStream(detector)
    return np.concatenate([stream.push(samples), stream.flush()])


@pytest.mark.parametrize(("container", "codec", "rate"), [("wav", "pcm_s16le", 16_000), ("flac", "flac", 44_100),
                                                          ("mp3", "libmp3lame", 48_000)])  # fmt: skip
def test_sound_and_speech_are_the_same_as_without_another_process(
    container: str, codec: str, rate: int, media: Media, two_minutes: Samples, detector: OnnxDetector
) -> None:
    data = encode(two_minutes[: 50 * SAMPLE_RATE], container=container, codec=codec, rate=rate)
    reading = media.read(data)
    assert len(reading.lengths) == 3
    assert np.array_equal(reading.samples, decoded_by_one_thread(data, media.filters))
    assert np.array_equal(reading.probabilities, detected(reading.samples, detector))
    assert not reading.reader.is_truncated
    assert reading.crashes == 0


def test_without_a_detector_a_worker_finds_the_sound_only(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Sample]
) -> None:
    data = samples["short"].path.read_bytes()
    with running_media(tmp_path_factory.mktemp("media"), detect=False) as media:
        reading = media.read(data)
    assert np.array_equal(reading.samples, decoded(data))
    assert reading.found == [None]


@pytest.mark.parametrize("length", [FIRST_BLOCK_SAMPLES - 1, FIRST_BLOCK_SAMPLES, FIRST_BLOCK_SAMPLES + 1,
                                    FIRST_BLOCK_SAMPLES + BLOCK_SAMPLES, 3 * BLOCK_SAMPLES + 700])  # fmt: skip
def test_a_long_file_comes_in_blocks_of_whole_windows_the_first_of_them_short(
    length: int, media: Media, two_minutes: Samples, detector: OnnxDetector
) -> None:
    data = wav(pcm(two_minutes[:length]))
    reading = media.read(data)
    assert sum(reading.lengths) == length
    following = (length - FIRST_BLOCK_SAMPLES - 1) // BLOCK_SAMPLES
    assert reading.lengths[:-1] == [FIRST_BLOCK_SAMPLES, *[BLOCK_SAMPLES] * following][: len(reading.lengths) - 1]
    assert len(reading.lengths) == 1 if length <= FIRST_BLOCK_SAMPLES else following + 2
    assert 14 < FIRST_BLOCK_SAMPLES / SAMPLE_RATE < 16
    assert 29 < BLOCK_SAMPLES / SAMPLE_RATE < 31
    assert np.array_equal(reading.samples, decoded(data))
    assert np.array_equal(reading.probabilities, detected(reading.samples, detector))


def test_a_worker_does_not_run_ahead_of_what_is_asked_for(media: Media, samples: dict[str, Sample]) -> None:
    async def read(pool: WorkerPool) -> None:
        reading = Reading(media.filters, samples["two-minutes"].path.read_bytes())
        reading.begin(pool)
        assert await reading.block()
        (worker,) = media.workers()
        spent = psutil.Process(worker).cpu_times().user
        await asyncio.sleep(1)
        assert psutil.Process(worker).cpu_times().user - spent < 0.05
        assert os.fstat(reading.audio.descriptor).st_size == SAMPLE_BYTES * FIRST_BLOCK_SAMPLES
        assert await reading.block()
        assert os.fstat(reading.audio.descriptor).st_size == SAMPLE_BYTES * (FIRST_BLOCK_SAMPLES + BLOCK_SAMPLES)
        reading.close()

    media.run(read)


def test_what_is_wrong_with_a_file_is_told_from_one_process_to_the_other(
    media: Media, samples: dict[str, Sample]
) -> None:
    good = samples["short"].path.read_bytes()
    with pytest.raises(UndecodableAudio, match="empty"):
        media.read(b"")
    with pytest.raises(UndecodableAudio, match="damaged, or not a media file"):
        media.read(b"no sound" * 100)
    with pytest.raises(AudioTooLong, match="longer than the limit of 2 seconds"):
        media.read(good, max_seconds=2)
    tenth = encode(np.zeros(SAMPLE_RATE // 20, np.float32), container="wav", codec="pcm_s16le", rate=16_000)
    with pytest.raises(AudioTooShort):
        media.read(tenth)
    assert media.read(good[: len(good) // 2]).reader.is_truncated


def test_a_file_that_is_refused_costs_no_worker(media: Media, samples: dict[str, Sample]) -> None:
    async def read(pool: WorkerPool) -> None:
        await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)
        before = media.workers()
        for data in (b"", b"no sound" * 100):
            refused = Reading(media.filters, data)
            with pytest.raises(UndecodableAudio):
                await refused.all(pool)
            assert refused.crashes == 0
        await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)
        assert media.workers() == before
        assert len(before) == 1

    media.run(read)


def test_a_worker_is_kept_for_other_files_but_not_for_ever(
    media: Media, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "MAX_FILES", 4)
    data = samples["short"].path.read_bytes()

    async def read(pool: WorkerPool) -> None:
        await Reading(media.filters, data).all(pool)
        (first,) = media.workers()
        for _ in range(2):
            await Reading(media.filters, data).all(pool)
            assert media.workers() == {first}
        await Reading(media.filters, data).all(pool)
        assert await soon(lambda: not media.workers())
        await Reading(media.filters, data).all(pool)
        (second,) = media.workers()
        assert second != first

    media.run(read)


@asynccontextmanager
async def four_read_at_once(media: Media, pool: WorkerPool, data: bytes) -> AsyncIterator[None]:
    """Inside, a block of each is read; at the end all of them."""
    readings = [Reading(media.filters, data) for _ in range(4)]
    for reading in readings:
        reading.begin(pool)
        assert await reading.block()
    yield
    for reading in readings:
        await reading.rest()
        reading.close()


def test_only_so_many_workers_are_kept_idle(
    media: Media, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "IDLE_SHARE", 1)
    data = samples["two-minutes"].path.read_bytes()

    async def read(pool: WorkerPool) -> None:
        async with four_read_at_once(media, pool, data):
            assert len(media.workers()) == 4
        assert await soon(lambda: len(media.workers()) == 2)

    media.run(read)


def test_the_workers_of_many_files_at_once_are_kept_a_moment_for_the_next(
    media: Media, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "SPARE_SECONDS", 300)
    data = samples["two-minutes"].path.read_bytes()

    async def read(pool: WorkerPool) -> None:
        for _ in range(2):
            async with four_read_at_once(media, pool, data):
                workers.append(media.workers())

    workers: list[set[int]] = []
    media.run(read)
    assert len(workers[0]) == 4
    assert workers[1] == workers[0]


def test_an_idle_worker_gives_back_what_its_last_file_took(media: Media, samples: dict[str, Sample]) -> None:
    data = encode(
        samples["two-minutes"].audio().samples, container="wav", codec="pcm_s16le", rate=192_000, layout="stereo"
    )

    async def read(pool: WorkerPool) -> None:
        held = []
        with closing(Reading(media.filters, data)) as reading:
            reading.begin(pool)
            while await reading.block():
                (worker,) = media.workers()
                held.append(psutil.Process(worker).memory_full_info().uss)
        assert await soon(lambda: psutil.Process(worker).memory_full_info().uss < max(held) / 2)

    media.run(read)


def test_a_worker_may_take_so_much_memory_and_no_more(media: Media, samples: dict[str, Sample]) -> None:
    async def read(pool: WorkerPool) -> None:
        await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)
        (worker,) = media.workers()
        most, hardest = psutil.Process(worker).rlimit(psutil.RLIMIT_DATA)
        assert WORKER_BYTES < most == hardest < 2 * WORKER_BYTES  # and what it had before any file

    media.run(read)


def test_a_worker_that_ended_while_it_was_idle_is_not_used(media: Media, samples: dict[str, Sample]) -> None:
    data = samples["short"].path.read_bytes()

    async def read(pool: WorkerPool) -> None:
        await Reading(media.filters, data).all(pool)
        (idle,) = media.workers()
        psutil.Process(idle).kill()
        assert await soon(lambda: not media.workers())
        await asyncio.sleep(0)
        reading = Reading(media.filters, data)
        assert np.array_equal(await reading.all(pool), decoded(data))
        assert reading.crashes == 0

    media.run(read)


def test_no_more_workers_compute_at_once_than_are_allowed(media: Media) -> None:
    async def read(pool: WorkerPool) -> None:
        readings = [Reading(media.filters, trap("sleep")) for _ in range(4)]
        tasks = [asyncio.create_task(reading.all(pool)) for reading in readings]
        assert await soon(lambda: len(media.workers()) == 2)
        until = time.monotonic() + 1
        while time.monotonic() < until:
            assert len(media.workers()) <= 2
            await asyncio.sleep(0.02)
        for task in tasks[:2]:
            task.cancel()
        assert await soon(lambda: len(media.workers()) == 2)  # of the two others
        for task in tasks[2:]:
            task.cancel()
        assert all(
            isinstance(one, asyncio.CancelledError) for one in await asyncio.gather(*tasks, return_exceptions=True)
        )

    media.run(read, computing=2)


def test_files_that_stall_their_workers_hold_others_up_for_a_short_time_only(
    media: Media, samples: dict[str, Sample], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "HELD_SECONDS", 0.1)

    async def read(pool: WorkerPool) -> None:
        readings = [Reading(media.filters, trap("sleep")) for _ in range(3)]
        stalled = [asyncio.create_task(reading.all(pool)) for reading in readings]
        await asyncio.sleep(0)
        assert len(await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)) > SAMPLE_RATE
        assert not all(reading.reader._faults for reading in readings)  # not after the last of their workers has ended
        refused = await asyncio.gather(*stalled, return_exceptions=True)
        assert all(isinstance(one, UndecodableAudio) for one in refused)

    media.run(read, computing=1)


def test_a_small_file_passes_large_ones_that_came_before_it(media: Media, samples: dict[str, Sample]) -> None:
    order: list[str] = []

    async def read(pool: WorkerPool) -> None:
        large = [asyncio.create_task(pass_through(pool, "large", 9 << 20)) for _ in range(3)]
        await asyncio.sleep(0)
        await asyncio.gather(*large, pass_through(pool, "small", 1000))

    async def pass_through(pool: WorkerPool, name: str, size: int) -> None:
        async with pool.slot(0, size):
            await asyncio.sleep(0.01)
            order.append(name)

    media.run(read, computing=1)
    assert order == ["large", "small", "large", "large"]


def test_files_that_stall_their_workers_take_no_more_memory_than_all_may(
    media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "HELD_SECONDS", 0.1)

    async def read(pool: WorkerPool) -> None:
        pool._memory = 3 * WORKER_BYTES  # of a worker nothing is known before its first answer
        stalled = [asyncio.create_task(Reading(media.filters, trap("sleep")).all(pool)) for _ in range(5)]
        most = 0
        for _ in range(60):
            await asyncio.sleep(0.02)
            most = max(most, len(media.workers()))
        assert most == 3
        for task in stalled:
            task.cancel()
        await asyncio.gather(*stalled, return_exceptions=True)

    media.run(read, computing=1)


def test_whoever_leaves_ends_the_worker(media: Media) -> None:
    async def read(pool: WorkerPool) -> None:
        reading = Reading(media.filters, trap("sleep"))
        task = asyncio.create_task(reading.all(pool))
        assert await soon(lambda: len(media.workers()) == 1)
        began = time.monotonic()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert await soon(lambda: not media.workers())
        assert time.monotonic() - began < 5
        assert reading.crashes == 0

    media.run(read)


def test_a_file_that_is_closed_between_two_blocks_ends_the_worker(media: Media, samples: dict[str, Sample]) -> None:
    async def read(pool: WorkerPool) -> None:
        reading = Reading(media.filters, samples["two-minutes"].path.read_bytes())
        reading.begin(pool)
        assert await reading.block()
        assert len(media.workers()) == 1
        reading.close()
        assert await soon(lambda: not media.workers())

    media.run(read)


def test_a_file_that_is_read_slowly_holds_nobody_up_and_is_not_taken_for_stalled(
    media: Media, samples: dict[str, Sample]
) -> None:
    async def read(pool: WorkerPool) -> None:
        slow = Reading(media.filters, samples["two-minutes"].path.read_bytes())
        slow.begin(pool)
        assert await slow.block()
        await asyncio.sleep(2.5)  # more than the 2 s of a stalled worker here
        short = Reading(media.filters, samples["short"].path.read_bytes())
        assert len(await short.all(pool)) > SAMPLE_RATE
        await slow.rest()
        slow.close()
        assert np.array_equal(slow.samples, samples["two-minutes"].audio().samples)
        assert slow.crashes == 0

    media.run(read, computing=1)


def test_a_file_asks_once_for_a_filter_that_is_not_made_yet(
    tmp_path_factory: pytest.TempPathFactory, two_minutes: Samples
) -> None:
    data = encode(two_minutes[: 40 * SAMPLE_RATE], container="flac", codec="flac", rate=44_100)
    with running_media(tmp_path_factory.mktemp("media")) as media:
        first, second = media.read(data), media.read(data)
    assert first.asked == [44_100]
    assert second.asked == []
    assert np.array_equal(first.samples, decoded_by_one_thread(data, media.filters))
    assert np.array_equal(second.samples, first.samples)


def test_nothing_stays_open_in_a_front_whatever_became_of_its_files(media: Media, samples: dict[str, Sample]) -> None:
    data = samples["two-minutes"].path.read_bytes()

    async def read_one(pool: WorkerPool) -> None:
        await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)

    async def read(pool: WorkerPool) -> None:
        for bad in (b"", b"RIFF\0\0\0\0WAVE" + bytes(100), trap("crash")):
            with pytest.raises(UndecodableAudio):
                await Reading(media.filters, bad).all(pool)
        half_read = Reading(media.filters, data)
        half_read.begin(pool)
        assert await half_read.block()
        half_read.close()
        await Reading(media.filters, data).all(pool)

    media.run(read_one)
    before = descriptors()
    media.run(read)
    assert descriptors() == before


def test_nothing_stays_open_in_a_worker_after_a_file(media: Media, samples: dict[str, Sample]) -> None:
    data = samples["short"].path.read_bytes()
    files = (data, b"", b"no sound" * 100, b"RIFF\0\0\0\0WAVE" + bytes(100), wav(pcm(np.zeros(100, np.float32))), data)

    async def read(pool: WorkerPool) -> None:
        await Reading(media.filters, data).all(pool)
        (worker,) = media.workers()
        await asyncio.sleep(0.5)  # it answers before it closes the file
        before = psutil.Process(worker).num_fds()
        for one in files:
            reading = Reading(media.filters, one)
            await asyncio.gather(reading.all(pool), return_exceptions=True)
            assert reading.crashes == 0
        assert media.workers() == {worker}
        await asyncio.sleep(0.5)
        assert psutil.Process(worker).num_fds() == before

    media.run(read)


def test_a_media_worker_has_none_of_the_models_libraries_in_it() -> None:
    code = "import sys, parakeet_stt.processes.media, parakeet_stt.engines.silero_onnx;"
    code += "print(*sorted({'torch', 'torchaudio', 'nemo', 'bentoml', 'silero_vad'} & set(sys.modules)))"
    printed = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert printed.stdout == "\n"


def test_a_worker_that_takes_more_than_its_share_of_too_much_memory_is_refused_and_no_other(
    media: Media, samples: dict[str, Sample]
) -> None:
    long_file = samples["two-minutes"].path.read_bytes()

    async def read(pool: WorkerPool) -> None:
        large, small = Reading(media.filters, long_file), Reading(media.filters, long_file)
        for reading in (large, small):
            reading.begin(pool)
            assert await reading.block()
        first, second = large.reader._worker, small.reader._worker
        assert first
        assert second
        assert min(first.memory, second.memory) > 1 << 20
        pool._memory, second.memory = 1, 0  # both together are above, and the first alone
        pool.check_memory(second)
        with pytest.raises(Overloaded):
            await large.block()
        large.close()
        pool._memory = 1 << 30
        await small.rest()
        small.close()
        assert not pool._busy

    media.run(read)
