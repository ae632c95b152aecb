"""The batcher by itself: which batches it makes of what is queued, what fails alone, and what ends the process."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.batcher import MAX_DETECTED, Batcher, DetectWork, Work
from parakeet_stt.device.reports import BatchReport, DeviceEvent, Report, WaitReport
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, Chunk, DetectorStates, Priority, SpeechDetector
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, Probabilities, Windows
from tests.device.echo import Echo, numbers_of, seconds


class Desk:
    """A batcher over an echo, and the answers that it gives: an error, or the length that the echo heard."""

    def __init__(self, echo: Echo, *, budget: float = 8.0, detector: SpeechDetector | None = None) -> None:
        self.reports: list[Report] = []
        self.budget = BatchBudget(Cost(overhead=1.0, speed=10.0), seconds=budget, items=16)
        self.batcher = Batcher(echo, detector, self.budget, on_report=self.reports.append)
        self.answers: list[tuple[int, int | RecognitionError]] = []
        self.detected: list[Any] = []
        self.loaded: list[int] = []

    def submit(self, length: int, priority: Priority = Priority.SHORT, **more: Any) -> Work:
        """Queue an utterance, or a chunk where it is live."""

        def load() -> Audio | Chunk:
            self.loaded.append(length)
            audio = Audio(np.zeros(length, np.float32))
            return Chunk(audio, 0, 0, None) if priority is Priority.LIVE else audio

        def answer(found: Any) -> None:
            if not isinstance(found, RecognitionError):
                (found,) = numbers_of(found.tokens if isinstance(found, Hypothesis) else found.stable)
            self.answers.append((length, found))

        work = Work(load, length, priority, len(self.answers), more.pop("phrases", ()), answer, **more)
        self.batcher.submit(work)
        return work

    def detect(self, *streams: Windows, states: DetectorStates | None = None) -> DetectWork:
        """Queue windows of several streams."""
        states = no_states(len(streams)) if states is None else states
        work = DetectWork(lambda: list(streams), sum(map(len, streams)), states, self.detected.append)
        self.batcher.detect(work)
        return work

    def work(self) -> None:
        """Take step after step until nothing is queued."""
        while self.batcher.has_work:
            self.batcher.step()


class Sums:
    """A detector whose probabilities are the sums of the windows; a state counts its stream's windows."""

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.error: BaseException | None = None

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        self.calls.append([len(one) for one in windows])
        if self.error:
            raise self.error
        counts = np.array([len(one) for one in windows], np.float32)[:, None, None]
        return [one.sum(axis=1) for one in windows], states + counts


def no_states(streams: int) -> DetectorStates:
    return np.zeros((streams, *DETECTOR_STATE_SHAPE), np.float32)


def windows(count: int, value: float = 0.0) -> Windows:
    return np.full((count, CONTEXT_SAMPLES + WINDOW_SAMPLES), value, np.float32)


def test_a_step_decodes_one_batch_of_one_priority_and_answers_it(echo: Echo) -> None:
    desk = Desk(echo)
    for length in (3, 1, 2):
        desk.submit(length)
    desk.submit(4, Priority.LIVE)
    desk.batcher.step()
    assert desk.answers == [(4, 4)]
    desk.batcher.step()
    assert sorted(desk.answers[1:]) == [(1, 1), (2, 2), (3, 3)]
    assert not desk.batcher.has_work


def test_a_step_without_work_does_nothing(echo: Echo) -> None:
    desk = Desk(echo)
    desk.batcher.step()
    assert echo.batches == []
    assert desk.reports == []


def test_a_batch_keeps_to_the_budget(echo: Echo) -> None:
    desk = Desk(echo, budget=8.0)
    for _ in range(12):
        desk.submit(seconds(1))
    desk.work()
    assert [len(batch) for batch in echo.batches] == [8, 4]


def test_a_bad_item_in_a_batch_of_16_fails_alone(echo: Echo) -> None:
    desk = Desk(echo)
    echo.poison = {5}
    for length in range(1, 17):
        desk.submit(length)
    desk.work()
    answers = dict(desk.answers)
    assert len(desk.answers) == len(answers) == 16
    assert isinstance(answers.pop(5), RecognitionError)
    assert answers == {length: length for length in range(1, 17) if length != 5}
    assert desk.reports.count(DeviceEvent.RECOGNITION_ERROR) == 1


def test_audio_that_cannot_be_read_fails_alone(echo: Echo) -> None:
    desk = Desk(echo)

    def fail() -> Audio:
        raise OSError("no such audio")

    desk.submit(1)
    desk.submit(2).load = fail
    desk.work()
    answers = dict(desk.answers)
    assert answers[1] == 1
    assert isinstance(answers[2], RecognitionError)


def test_a_batch_that_does_not_fit_is_halved_and_the_budget_shrinks(echo: Echo) -> None:
    desk = Desk(echo, budget=16.0)
    echo.room = 5 * SAMPLE_RATE
    for _ in range(16):
        desk.submit(seconds(1))
    desk.work()
    assert desk.answers == [(SAMPLE_RATE, SAMPLE_RATE)] * 16
    assert [len(batch) for batch in echo.batches] == [4] * 4
    assert desk.budget.limits.seconds == 4
    assert DeviceEvent.RECOGNITION_ERROR not in desk.reports


def test_a_single_item_that_does_not_fit_is_answered_with_the_error(echo: Echo) -> None:
    desk = Desk(echo)
    echo.room = SAMPLE_RATE
    desk.submit(seconds(2))
    desk.submit(7)
    desk.work()
    answers = dict(desk.answers)
    assert isinstance(answers[seconds(2)], OutOfMemory)
    assert answers[7] == 7


@pytest.mark.parametrize("end", [DeviceLost("gone"), SystemExit(), MemoryError()])
def test_only_what_ends_the_process_comes_out_of_a_step(echo: Echo, end: BaseException) -> None:
    desk = Desk(echo)

    def recognize(batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        raise end

    echo.recognize = recognize  # type: ignore[method-assign]
    desk.submit(1)
    if isinstance(end, MemoryError):
        desk.batcher.step()
        assert isinstance(desk.answers[0][1], RecognitionError)
    else:
        with pytest.raises(type(end)):
            desk.batcher.step()
        assert desk.answers == []


def test_work_that_is_cancelled_is_not_even_read(echo: Echo) -> None:
    desk = Desk(echo)
    gone = [desk.submit(length) for length in range(10, 20)]
    desk.submit(1)
    for work in gone:
        work.is_cancelled = True
    desk.work()
    assert echo.batches == [[1]]
    assert desk.loaded == [1]


def test_work_that_was_lost_before_is_announced_and_decoded_alone_after_the_others(echo: Echo) -> None:
    desk = Desk(echo)
    events: list[object] = []
    echo.batches = events  # type: ignore[assignment]  # what is announced goes in between
    for length in (1, 2):
        desk.submit(length, on_start=lambda length=length: events.append(f"starts {length}"))
    for length in (3, 4):
        desk.submit(length)
    desk.batcher.step()
    assert events == [[3, 4], "starts 1", [1], "starts 2", [2]]


def test_each_batch_is_reported_with_its_padding_and_its_waits(echo: Echo) -> None:
    desk = Desk(echo)
    desk.submit(seconds(1))
    desk.submit(seconds(2))
    desk.work()
    waits, batch = desk.reports
    assert isinstance(waits, WaitReport)
    assert len(waits.seconds) == 2
    assert min(waits.seconds) > 0
    assert isinstance(batch, BatchReport)
    assert (batch.items, batch.audio, batch.padded) == (2, 3, 4)


def test_speech_is_detected_before_the_batch_for_all_who_wait_together(echo: Echo) -> None:
    detector = Sums()
    desk = Desk(echo, detector=detector)
    desk.submit(1)
    desk.detect(windows(2, 1.0), windows(0), states=no_states(2) + 5)
    desk.detect(windows(3, 2.0))
    echo.poison = {1}  # its answer comes after all others
    desk.batcher.step()
    assert detector.calls == [[2, 0, 3]]
    (first, none), states = desk.detected[0]
    np.testing.assert_array_equal(first, [576, 576])
    assert len(none) == 0
    np.testing.assert_array_equal(states[:, 0, 0], [7, 5])
    (third,), states = desk.detected[1]
    np.testing.assert_array_equal(third, [1152] * 3)
    np.testing.assert_array_equal(states[:, 0, 0], [3])
    assert len(desk.answers) == 1


def test_no_more_windows_go_through_the_detector_at_once_than_its_limit(echo: Echo) -> None:
    detector = Sums()
    desk = Desk(echo, detector=detector)
    for count in (MAX_DETECTED + 1, MAX_DETECTED - 1, 1, 1):
        desk.detect(windows(count))
    desk.submit(1)
    desk.batcher.step()
    assert desk.answers == [(1, 1)]
    desk.work()
    assert detector.calls == [[MAX_DETECTED + 1], [MAX_DETECTED - 1, 1], [1]]
    assert len(desk.detected) == 4


def test_a_detection_that_is_cancelled_is_not_done(echo: Echo) -> None:
    detector = Sums()
    desk = Desk(echo, detector=detector)
    desk.detect(windows(1)).is_cancelled = True
    desk.work()
    assert detector.calls == []


@pytest.mark.parametrize("make_detector", [lambda: None, Sums])
def test_a_detector_that_fails_or_is_not_there_is_an_error_of_those_who_asked(
    echo: Echo, make_detector: Callable[[], Sums | None]
) -> None:
    detector = make_detector()
    if detector:
        detector.error = ValueError("broken")
    desk = Desk(echo, detector=detector)
    desk.detect(windows(1))
    desk.detect(windows(1))
    desk.submit(1)
    desk.work()
    assert [type(answer) for answer in desk.detected] == [RecognitionError] * 2
    assert desk.answers == [(1, 1)]


def test_a_device_that_is_lost_in_the_detector_comes_out_of_the_step(echo: Echo) -> None:
    detector = Sums()
    detector.error = DeviceLost("gone")
    desk = Desk(echo, detector=detector)
    desk.detect(windows(1))
    with pytest.raises(DeviceLost):
        desk.batcher.step()
