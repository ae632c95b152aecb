"""The batcher over a device that works while the next batch is prepared, as a GPU does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.batcher import Batcher, Work
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError
from parakeet_stt.protocols import Pending, Priority
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis
from tests.parts import FakeRecognizer


class Queueing(FakeRecognizer):
    """Notes what is launched and collected. late, early: lengths that raise when collected, or when launched."""

    device = "cuda"

    def __init__(
        self, late: Mapping[int, Exception] | None = None, early: Mapping[int, Exception] | None = None
    ) -> None:
        self.notes: list[str] = []
        self.late, self.early = late or {}, early or {}

    def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Pending[list[Hypothesis]]:
        lengths = [audio.length for audio in batch]
        self.notes.append(f"launch {lengths}")
        for length in lengths:
            if length in self.early:
                raise self.early[length]
        return Queued(self, lengths)


class Queued:
    def __init__(self, device: Queueing, lengths: list[int]) -> None:
        self.device = device
        self.lengths = lengths

    def result(self) -> list[Hypothesis]:
        self.device.notes.append(f"collect {self.lengths}")
        for length in self.lengths:
            if length in self.device.late:
                raise self.device.late[length]
        return [Hypothesis(())] * len(self.lengths)


class Asked:
    """Works of these lengths, and the answers to them in order."""

    def __init__(self, device: Queueing, *lengths: int, seconds: float = 1e9, items: int = 1) -> None:
        self.answers: list[tuple[int, Any]] = []
        self.batcher = Batcher(
            device, None, BatchBudget(Cost(1, 10), seconds=seconds, items=items), on_report=lambda _: None
        )
        for length in lengths:
            self.submit(length)

    def submit(self, length: int) -> None:
        def answer(found: Any) -> None:
            self.answers.append((length, found))

        load = lambda: Audio(np.zeros(length, np.float32))  # noqa: E731
        self.batcher.submit(Work(load, length, Priority.SHORT, length, NO_PHRASES, answer))

    def run(self) -> None:
        while self.batcher.has_work:
            self.batcher.step()


def test_the_next_batch_is_launched_before_the_one_before_it_is_collected() -> None:
    device = Queueing()
    asked = Asked(device, 1, 2, 3)
    asked.run()
    assert device.notes == [
        "launch [1]", "launch [2]", "collect [1]", "launch [3]", "collect [2]", "collect [3]",
    ]  # fmt: skip
    assert [length for length, _ in asked.answers] == [1, 2, 3]


def test_a_batch_with_nothing_behind_it_is_collected_in_the_next_step() -> None:
    device = Queueing()
    asked = Asked(device, 1)
    asked.batcher.step()
    assert not asked.answers
    assert asked.batcher.has_work
    asked.batcher.step()
    assert [length for length, _ in asked.answers] == [1]
    assert not asked.batcher.has_work


@pytest.mark.parametrize("when", ["late", "early"])
def test_an_error_of_one_item_is_its_own_whenever_it_shows(when: str) -> None:
    device = Queueing(**{when: {3: ValueError("bad")}})
    asked = Asked(device, *range(1, 9), items=4)
    asked.run()
    failed = {length for length, found in asked.answers if isinstance(found, RecognitionError)}
    assert failed == {3}
    assert sorted(length for length, _ in asked.answers) == list(range(1, 9))


@pytest.mark.parametrize("when", ["late", "early"])
def test_out_of_memory_halves_the_budget_and_everybody_is_answered(when: str) -> None:
    class Small(Queueing):
        def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Pending[list[Hypothesis]]:
            errors = {batch[0].length: OutOfMemory("too much")} if len(batch) > 2 else {}
            self.late, self.early = (errors, {}) if when == "late" else ({}, errors)
            return super().launch(batch, phrases)

    asked = Asked(Small(), *[SAMPLE_RATE] * 16, seconds=8, items=8)
    asked.run()
    assert not [found for _, found in asked.answers if isinstance(found, RecognitionError)]
    assert len(asked.answers) == 16
    assert asked.batcher.budget.limits.seconds == 2


@pytest.mark.parametrize("when", ["late", "early"])
def test_a_lost_device_ends_the_loop_at_once(when: str) -> None:
    asked = Asked(Queueing(**{when: {2: DeviceLost("gone")}}), 1, 2, 3)
    with pytest.raises(DeviceLost):
        asked.run()
    assert not [found for _, found in asked.answers if isinstance(found, RecognitionError)]
