"""Devices over a recognizer that fails and blocks at will."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import pytest

from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.protocols import SpeechDetector
from tests.device.echo import Echo
from tests.parts import RunningDevice

Make = Callable[..., RunningDevice]


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def make(echo: Echo) -> Iterator[Make]:
    """Makes running devices; all of them work with `echo`, unless they get another."""
    made: list[RunningDevice] = []

    def make_device(
        *,
        budget: float = 8.0,
        batches: BatchBudget | None = None,
        max_waiting: float = 1e9,
        other: Echo | None = None,
        detector: SpeechDetector | None = None,
    ) -> RunningDevice:
        batches = batches or BatchBudget(Cost(overhead=1.0, speed=10.0), seconds=budget, items=16)
        made.append(RunningDevice(lambda: other or echo, batches, detector=detector, max_waiting=max_waiting))
        return made[-1]

    yield make_device
    echo.go.set()
    for device in made:
        device.close()
