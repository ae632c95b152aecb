"""Workers, programs and fronts that end in the middle: a file is read all the same, or refused, and nothing is left."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil  # type: ignore[import-untyped]
import pytest

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.errors import Unavailable, UndecodableAudio
from parakeet_stt.media import pool as pool_module
from parakeet_stt.media.pool import WorkerPool
from parakeet_stt.media.worker import FIRST_BLOCK_SAMPLES
from parakeet_stt.processes.supervisor import BEAT, READY, Program
from tests.conftest import ROOT, Sample, encode
from tests.media.readers import PATIENCE, Media, Reading, descriptors, eventually, has_ended, running_media, soon
from tests.services.trapped_decoder import TRAPS, trap

FRONT_WITH_FILES_HALF_READ = """
import asyncio, os, sys
from pathlib import Path
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.pool import MediaReader, MediaSettings, WorkerPool
async def read():
    pool = WorkerPool(Path(sys.argv[1]), computing=2)
    settings = MediaSettings(1000, Path(sys.argv[1]).parent, None, None)
    files = [MediaReader(os.open(sys.argv[2], os.O_RDONLY), SharedAudio(), pool, settings).blocks() for _ in range(2)]
    for blocks in files:
        await anext(blocks)
    print("half", flush=True)
    await asyncio.sleep(1000)
asyncio.run(read())
"""


@pytest.fixture(scope="module")
def media(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Media]:
    with running_media(tmp_path_factory.mktemp("media")) as running:
        yield running


@pytest.fixture(scope="module")
def long_file(samples: dict[str, Sample]) -> bytes:
    sound = samples["two-minutes"].audio().samples[: 75 * SAMPLE_RATE]
    return encode(sound, container="flac", codec="flac", rate=44_100)


@pytest.fixture(scope="module")
def undisturbed(media: Media, long_file: bytes) -> Reading:
    """The file, read without trouble."""
    reading = media.read(long_file)
    assert len(reading.lengths) == 4
    return reading


async def end_while_it_computes(reading: Reading, worker: int) -> asyncio.Task[bool]:
    """End a worker after it was asked for the next block and before it can answer."""
    os.kill(worker, signal.SIGSTOP)
    asking = asyncio.create_task(reading.block())
    await asyncio.sleep(0.05)
    assert not asking.done()
    os.kill(worker, signal.SIGKILL)
    return asking


@pytest.mark.parametrize("blocks", [0, 1, 2])
def test_a_worker_that_is_killed_while_it_computes_is_replaced_and_nothing_is_heard_of_it(
    blocks: int, media: Media, long_file: bytes, undisturbed: Reading
) -> None:
    async def read(pool: WorkerPool) -> Reading:
        reading = Reading(media.filters, long_file)
        reading.begin(pool)
        if blocks == 0:
            await Reading(media.filters, long_file).all(pool)  # a worker that is idle, to be stopped
        for _ in range(blocks):
            assert await reading.block()
        (worker,) = media.workers()
        assert await (await end_while_it_computes(reading, worker))
        await reading.rest()
        assert media.workers() != {worker}
        reading.close()
        return reading

    reading = media.run(read)
    assert reading.lengths == undisturbed.lengths
    assert reading.samples.tobytes() == undisturbed.samples.tobytes()
    assert reading.probabilities.tobytes() == undisturbed.probabilities.tobytes()
    assert reading.crashes == 0


def test_a_worker_that_is_killed_between_two_blocks_is_replaced(
    media: Media, long_file: bytes, undisturbed: Reading
) -> None:
    async def read(pool: WorkerPool) -> Reading:
        reading = Reading(media.filters, long_file)
        reading.begin(pool)
        assert await reading.block()
        (worker,) = media.workers()
        os.kill(worker, signal.SIGKILL)
        assert await soon(lambda: not media.workers())
        await reading.rest()
        reading.close()
        return reading

    reading = media.run(read)
    assert reading.lengths == undisturbed.lengths
    assert reading.samples.tobytes() == undisturbed.samples.tobytes()
    assert reading.probabilities.tobytes() == undisturbed.probabilities.tobytes()
    assert reading.crashes == 0


def test_a_file_whose_workers_are_killed_is_read_again_and_its_caller_at_last_told_to_come_back(
    media: Media, long_file: bytes, undisturbed: Reading
) -> None:
    async def kill(times: int, pool: WorkerPool) -> Reading:
        reading = Reading(media.filters, long_file)
        reading.begin(pool)
        assert await reading.block()
        for number in range(times):
            (worker,) = media.workers()
            asking = await end_while_it_computes(reading, worker)
            if number == pool_module.MAX_LOSSES - 1:
                with pytest.raises(Unavailable):  # the file is not at fault: no 400
                    await asking
            else:
                assert await asking
        await reading.rest() if times < pool_module.MAX_LOSSES else None
        reading.close()
        assert reading.crashes == 0
        return reading

    twice = media.run(lambda pool: kill(pool_module.MAX_LOSSES - 1, pool))
    assert twice.samples.tobytes() == undisturbed.samples.tobytes()
    media.run(lambda pool: kill(pool_module.MAX_LOSSES, pool))


def test_a_filter_is_asked_for_again_when_its_worker_dies_meanwhile(
    tmp_path_factory: pytest.TempPathFactory, long_file: bytes, undisturbed: Reading
) -> None:
    with running_media(tmp_path_factory.mktemp("media")) as media:

        async def read(pool: WorkerPool) -> Reading:
            reading = Reading(media.filters, long_file)
            make = reading._make_filter

            async def kill_and_make(rate: int) -> None:
                (worker,) = media.workers()
                os.kill(worker, signal.SIGKILL)
                await make(rate)

            reading._settings = pool_module.MediaSettings(
                1000, media.filters, kill_and_make, reading._settings.on_crash
            )
            await reading.all(pool)
            return reading

        reading = media.run(read)
    assert reading.samples.tobytes() == undisturbed.samples.tobytes()
    assert reading.crashes == 0


@pytest.mark.parametrize("name", TRAPS)
def test_a_file_that_no_worker_survives_is_refused_and_the_next_is_decoded(
    name: str, media: Media, samples: dict[str, Sample]
) -> None:
    async def read(pool: WorkerPool) -> None:
        reading = Reading(media.filters, trap(name))
        began = time.monotonic()
        with pytest.raises(UndecodableAudio, match="crashed, or took too much time or memory"):
            await reading.all(pool)
        assert time.monotonic() - began < PATIENCE
        assert reading.crashes == 1
        assert len(await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)) > SAMPLE_RATE

    media.run(read, computing=1)


def test_a_file_that_stalls_for_long_is_not_given_to_another_worker(
    media: Media, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pool_module, "STALLED_SECONDS", 1.0)  # less than a worker takes to end here
    seen: set[int] = set()

    async def read(pool: WorkerPool) -> None:
        reading = Reading(media.filters, trap("sleep"))
        task = asyncio.create_task(reading.all(pool))
        while not task.done():
            seen.update(media.workers())
            await asyncio.sleep(0.02)
        with pytest.raises(UndecodableAudio):
            await task
        assert reading.crashes == 1

    media.run(read)
    assert len(seen) == 1


def test_a_program_that_is_killed_is_waited_for_and_its_workers_finish_their_files(
    tmp_path_factory: pytest.TempPathFactory, long_file: bytes, undisturbed: Reading
) -> None:
    folder = tmp_path_factory.mktemp("media")

    async def read(first: Media) -> list[Reading]:
        pool = WorkerPool(first.path, computing=2)
        half_read = Reading(first.filters, long_file)
        half_read.begin(pool)
        assert await half_read.block()
        (worker,) = first.workers()
        first.process.kill()
        first.process.wait()
        waiting = Reading(first.filters, long_file)
        task = asyncio.create_task(waiting.all(pool))
        await half_read.rest()
        half_read.close()
        assert not has_ended(worker)  # it is idle now
        await asyncio.sleep(0.3)
        with running_media(folder) as second:
            os.kill(worker, signal.SIGKILL)
            assert await soon(lambda: has_ended(worker))
            await task
            another = Reading(first.filters, long_file)
            await another.all(pool)
            assert len(second.workers()) >= 1
            pool.close()
            assert await soon(lambda: not second.workers())
        return [half_read, waiting, another]

    with running_media(folder) as first:
        readings = asyncio.run(read(first))
    for reading in readings:
        assert reading.samples.tobytes() == undisturbed.samples.tobytes()
        assert reading.crashes == 0


def test_a_program_that_has_nothing_to_do_says_that_it_is_well(tmp_path: Path) -> None:
    """The supervisor ends one that says nothing for a minute."""
    process, lifeline = Program("media", "parakeet_stt.processes.media", [str(tmp_path / "media.sock")]).start()
    lifeline.settimeout(PATIENCE)
    with lifeline, lifeline.makefile() as said:
        assert [said.readline() for _ in range(3)] == [f"{READY}\n", f"{BEAT}\n", f"{BEAT}\n"]
    assert process.wait(PATIENCE) == 0


def test_nothing_is_left_of_a_front_that_was_killed(media: Media, samples: dict[str, Sample]) -> None:
    path = samples["two-minutes"].path
    program = [sys.executable, "-c", FRONT_WITH_FILES_HALF_READ, str(media.path), str(path)]
    open_before = psutil.Process(media.process.pid).num_fds()
    front = subprocess.Popen(program, cwd=ROOT, stdout=subprocess.PIPE, text=True)
    assert front.stdout is not None
    with front.stdout:
        assert front.stdout.readline() == "half\n"
        assert len(media.workers()) == 2
        front.kill()
        front.wait()
    assert eventually(lambda: not media.workers())
    assert eventually(lambda: psutil.Process(media.process.pid).num_fds() == open_before)


def test_nothing_is_left_when_the_service_ends(
    tmp_path_factory: pytest.TempPathFactory, samples: dict[str, Sample]
) -> None:
    before = descriptors()
    with running_media(tmp_path_factory.mktemp("media")) as media:

        async def read(pool: WorkerPool) -> set[int]:
            await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)
            half_read = Reading(media.filters, samples["two-minutes"].path.read_bytes())
            half_read.begin(pool)
            assert await half_read.block()
            await Reading(media.filters, samples["short"].path.read_bytes()).all(pool)
            assert len(half_read.samples) == FIRST_BLOCK_SAMPLES
            workers = media.workers()
            assert len(workers) == 2
            half_read.close()
            return workers

        workers = media.run(read)
        program = media.process
        assert program.poll() is None
    assert all(map(has_ended, workers))
    assert program.returncode == 0  # by itself, once its lifeline was closed
    assert descriptors() == before
