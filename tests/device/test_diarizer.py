"""A diarizer on a device: its work shares the queue with the recognizer's, and survives the end of the process."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from parakeet_stt.audio import Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.batcher import DIARIZE, Batcher, Work
from parakeet_stt.device.reports import BatchReport, DiarizeReport, Report
from parakeet_stt.errors import RecognitionError
from parakeet_stt.protocols import FRAME_SAMPLES, Priority, SpeakerChunk, SpeakerLayout, SpeakerResult
from parakeet_stt.text.phrases import NO_PHRASES
from tests.device.echo import Echo, ask, busy, seconds, shared_audio
from tests.parts import RunningDevice


class EchoDiarizer:
    """Says that the speaker whose number is the state speaks in every frame of the part; the state counts up.

    deadly: lengths that end the device process, once each.
    """

    layout = SpeakerLayout(speakers=3, chunk=10 * FRAME_SAMPLES, left_context=0, right_context=0, same_voice=0.5)

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.deadly: set[int] = set()

    def warm_up(self) -> None:
        """Nothing."""

    def diarize(self, batch: Sequence[SpeakerChunk]) -> list[SpeakerResult]:
        lengths = [chunk.audio.length for chunk in batch]
        if lost := self.deadly & set(lengths):
            self.deadly -= lost
            raise SystemExit
        self.batches.append(lengths)
        results = []
        for chunk in batch:
            number = chunk.state or 0
            assert isinstance(number, int)
            frames = (chunk.audio.length - chunk.left_context - chunk.right_context) // FRAME_SAMPLES
            said = np.eye(3, dtype=np.float32)[[number % 3] * frames]
            results.append(SpeakerResult(said, number + 1, np.arange(6, dtype=np.float32).reshape(3, 2)))
        return results


@pytest.fixture
def diarizer() -> EchoDiarizer:
    return EchoDiarizer()


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def device(echo: Echo, diarizer: EchoDiarizer) -> Iterator[RunningDevice]:
    budget = BatchBudget(Cost(overhead=1.0, speed=10.0), seconds=8, items=16)
    running = RunningDevice(lambda: echo, budget, diarizer=diarizer, max_waiting=1e9)
    yield running
    echo.go.set()
    running.close()


async def follow(device: RunningDevice, parts: Sequence[int]) -> list[int]:
    """The speaker of each part of a recording, by lengths in frames."""
    told = []
    with shared_audio(sum(parts) * FRAME_SAMPLES) as audio, device.client.recording(audio) as queue:
        assert queue.speaker_layout == EchoDiarizer.layout
        state, done = None, 0
        for part in parts:
            clip = audio.clip(done * FRAME_SAMPLES, (done + part) * FRAME_SAMPLES)
            found = await queue.diarize(SpeakerChunk(clip, 0, 0, state))
            assert found.probabilities.shape == (part, 3)
            assert found.voices is not None
            assert found.voices.tolist() == [[0, 1], [2, 3], [4, 5]]
            told.append(int(found.probabilities[0].argmax()))
            state, done = found.state, done + part
    return told


def test_a_recording_goes_through_part_after_part_with_its_state(device: RunningDevice) -> None:
    assert device.run(follow(device, [10, 10, 3])) == [0, 1, 2]


def test_parts_of_several_recordings_share_a_batch(device: RunningDevice, echo: Echo, diarizer: EchoDiarizer) -> None:
    async def work() -> None:
        first = await busy(echo, device)
        others = [asyncio.create_task(follow(device, [5])) for _ in range(3)]
        while device.client.waiting_seconds() < 1.2:  # noqa: ASYNC110  # of another thread
            await asyncio.sleep(0.01)
        echo.go.set()
        await asyncio.gather(first, *others)

    device.run(work())
    assert diarizer.batches == [[5 * FRAME_SAMPLES] * 3]


def test_what_the_device_process_was_asked_when_it_ended_is_asked_again(
    device: RunningDevice, diarizer: EchoDiarizer
) -> None:
    diarizer.deadly = {7 * FRAME_SAMPLES}

    async def work() -> list[int]:
        following = asyncio.create_task(follow(device, [10, 7, 10]))
        await asyncio.to_thread(device.thread.join, 20)
        device.start()
        return await following

    assert device.run(work()) == [0, 1, 2]
    assert isinstance(device.lost[0], SystemExit)


def test_a_recording_whose_caller_leaves_is_taken_out_of_the_queue(
    device: RunningDevice, echo: Echo, diarizer: EchoDiarizer
) -> None:
    async def work() -> None:
        first = await busy(echo, device)
        leaving = asyncio.create_task(follow(device, [5]))
        await asyncio.sleep(0.2)
        leaving.cancel()
        await asyncio.gather(leaving, return_exceptions=True)
        echo.go.set()
        await first
        await ask(device, 2)

    device.run(work())
    assert not diarizer.batches


def submit(batcher: Batcher, order: list[str], kind: int, priority: Priority, answers: list[object]) -> None:
    def load() -> Audio | SpeakerChunk:
        order.append(f"{priority.name} {'speakers' if kind == DIARIZE else 'words'}")
        audio = Audio(np.zeros(seconds(8), np.float32))
        return SpeakerChunk(audio, 0, 0, None) if kind == DIARIZE else audio

    batcher.submit(Work(load, seconds(8), priority, len(order), NO_PHRASES, answers.append, kind=kind))


def make_batcher(echo: Echo, diarizer: EchoDiarizer | None, reports: list[Report]) -> Batcher:
    budget = BatchBudget(Cost(overhead=1.0, speed=10.0), seconds=8, items=16)
    return Batcher(echo, None, budget, on_report=reports.append, diarizer=diarizer)


def test_priorities_hold_for_both_and_neither_starves(echo: Echo, diarizer: EchoDiarizer) -> None:
    order: list[str] = []
    answers: list[object] = []
    reports: list[Report] = []
    batcher = make_batcher(echo, diarizer, reports)
    for _ in range(6):
        for priority in (Priority.LONG, Priority.SHORT):
            for kind in (DIARIZE, 0):
                submit(batcher, order, kind, priority, answers)
    while batcher.has_work:
        batcher.step()
    assert order[:4] == ["SHORT words"] * 4
    assert {"SHORT speakers", "LONG speakers", "LONG words"} == set(order[4:7])  # each was passed over four times
    assert len(order) == len(answers) == 24
    assert sum(isinstance(one, DiarizeReport) for one in reports) == 12
    assert sum(isinstance(one, BatchReport) for one in reports) == 12


def test_a_device_without_a_diarizer_says_so(echo: Echo) -> None:
    answers: list[object] = []
    batcher = make_batcher(echo, None, [])
    submit(batcher, [], DIARIZE, Priority.SHORT, answers)
    batcher.step()
    assert isinstance(answers[0], RecognitionError)
