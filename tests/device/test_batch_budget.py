"""Measuring what batches cost, over a recognizer whose clock is written by hand."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import pytest

from parakeet_stt.audio import Audio
from parakeet_stt.device.batch_budget import (
    PROBE_SECONDS,
    RECOVERY_BATCHES,
    BatchBudget,
    Cost,
    full_batch_seconds,
    measure_cost,
)
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from tests.parts import FakeRecognizer


class Clocked(FakeRecognizer):
    """Takes (overhead + padded seconds) / speed of its own clock for a batch."""

    def __init__(self, cost: Cost) -> None:
        self.cost = cost
        self.now = 0.0
        self.counts: list[int] = []

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        self.counts.append(len(batch))
        self.now += self.cost.time(max(audio.duration for audio in batch) * len(batch))
        return [Hypothesis(())] * len(batch)

    def measured(self, most_items: int = 64) -> Cost:
        return measure_cost(self, most_items=most_items, clock=lambda: self.now)


@pytest.mark.parametrize("cost", [Cost(4, 16), Cost(50, 8000), Cost(7, 60)])
def test_the_cost_of_a_batch_is_found(cost: Cost) -> None:
    found = Clocked(cost).measured()
    assert found.overhead == pytest.approx(cost.overhead, rel=1e-6)
    assert found.speed == pytest.approx(cost.speed, rel=1e-6)


def test_a_slow_device_is_not_measured_for_long() -> None:
    slow = Clocked(Cost(1, 2))
    assert slow.measured().speed == pytest.approx(PROBE_SECONDS / slow.cost.time(PROBE_SECONDS))
    assert slow.counts == [1, 1]


def test_batches_that_cost_the_same_whatever_is_in_them_have_a_finite_speed() -> None:
    cost = Clocked(Cost(1e8, 1e9)).measured(most_items=16)
    assert cost.time(16 * PROBE_SECONDS) == pytest.approx(0.1, rel=0.1)
    assert cost.speed < 20_000
    assert cost.overhead > 16 * PROBE_SECONDS


class Graphed(Clocked):
    """A GPU that replays graphs: small batches take little and use little of it, large ones are twice as fast."""

    TIMES: ClassVar = {1: 0.007, 4: 0.009, 16: 0.015, 64: 0.027}

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        self.counts.append(len(batch))
        self.now += self.TIMES[len(batch)]
        return [Hypothesis(())] * len(batch)


def test_larger_batches_are_measured_while_they_are_much_faster() -> None:
    gpu = Graphed(Cost(0, 1))
    found = gpu.measured()
    assert gpu.counts == [1, 1, 4, 4, 16, 16, 64, 64]
    assert found.time(64 * PROBE_SECONDS) == pytest.approx(gpu.TIMES[64])
    assert full_batch_seconds(found, longest=24, capacity=None) > 600
    cpu = Clocked(Cost(1, 10))
    cpu.measured()
    assert cpu.counts == [1, 1, 4]


def test_the_budget_is_efficient_without_making_others_wait() -> None:
    assert full_batch_seconds(Cost(4, 16), longest=24, capacity=None) == pytest.approx(36)  # 90 % of the best speed
    assert full_batch_seconds(Cost(4, 1000), longest=24, capacity=None) == pytest.approx(
        76
    )  # 95 %: it takes less than a second
    assert full_batch_seconds(Cost(0.1, 1000), longest=24, capacity=None) == 24
    assert full_batch_seconds(Cost(4, 1000), longest=24, capacity=50) == 50
    assert full_batch_seconds(Cost(4, 1000), longest=24, capacity=10) == 24


def test_the_budget_shrinks_when_it_was_too_much_and_recovers_slowly() -> None:
    budget = BatchBudget(Cost(1, 10), seconds=64, items=8)
    budget.shrink(64)
    budget.shrink(32)
    assert budget.limits.seconds == 16
    for _ in range(RECOVERY_BATCHES):
        budget.learn(16, 1.7)
    assert budget.limits.seconds == pytest.approx(17.6)
    for _ in range(100 * RECOVERY_BATCHES):
        budget.learn(16, 1.7)
    assert budget.limits.seconds == 64


def test_the_speed_follows_what_is_seen() -> None:
    budget = BatchBudget(Cost(1, 10), seconds=64, items=8)
    for _ in range(100):
        budget.learn(19, 4)
    assert budget.speed == pytest.approx(5, rel=0.01)
