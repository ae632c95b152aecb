"""The batch budget: how large a batch may be, from the recognizer's speed. Measured at start, adjusted while it runs.

The time of a batch is modelled as (overhead + padded seconds) / speed.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.scheduler import BatchLimits
from parakeet_stt.protocols import Recognizer

PROBE_SECONDS = 2.5  # of audio in one item of a measuring batch
PROBE_GAIN = 1.5  # batches four times as large are measured until one is less than so many times as fast
PROBE_AGAIN = 0.1  # seconds; what takes less is measured a second time, since the first prepares for the size
PROBE_TIME = 3.0  # seconds; no batch is measured that would end later
GOOD_SHARE, BEST_SHARE = 0.9, 0.95  # of the speed of an endless batch that a full one should reach
BEST_SHARE_TIME = 1.0  # seconds; a full batch aims at the best share only while it takes no longer
RECOVERY = 1.1  # the budget's growth
RECOVERY_BATCHES = 20  # without an error, before each growth
SMOOTHING = 0.9  # weight of the old estimate of the speed beside a new measurement
LEAST_ITEM_SHARE = 0.05  # of a batch's time that its items are assumed to take, where measuring shows less


@dataclass(frozen=True, slots=True)
class Cost:
    """What batches cost. overhead: of a batch, in padded seconds. speed: padded seconds a second, without overhead."""

    overhead: float
    speed: float

    def time(self, padded: float) -> float:
        """Seconds that a batch of so many padded seconds takes."""
        return (self.overhead + padded) / self.speed

    def padded_for(self, share: float) -> float:
        """The padded seconds of a batch that reaches this share of the speed."""
        return self.overhead * share / (1 - share)


class BatchBudget:
    """The present limits of a batch, and the present speed. The device's thread changes them."""

    def __init__(self, cost: Cost, *, seconds: float, items: int) -> None:
        """seconds, items: the most that a batch may hold, the padding included."""
        self._overhead = cost.overhead
        self._most = seconds
        self._items = items
        self._seconds = seconds
        self._since_change = 0
        self.speed = cost.speed

    @property
    def limits(self) -> BatchLimits:
        """What the next batch may be."""
        return BatchLimits(self._seconds, self._items, self._overhead)

    def learn(self, padded: float, seconds: float) -> None:
        """A batch of `padded` seconds took `seconds`."""
        self.speed = SMOOTHING * self.speed + (1 - SMOOTHING) * (self._overhead + padded) / max(seconds, 1e-6)
        self._since_change += 1
        if self._seconds < self._most and self._since_change >= RECOVERY_BATCHES:
            self._seconds = min(self._most, self._seconds * RECOVERY)
            self._since_change = 0

    def shrink(self, padded: float) -> None:
        """A batch of `padded` seconds did not fit into the device's memory."""
        self._seconds = min(self._seconds, padded / 2)
        self._since_change = 0


def measure_cost(recognizer: Recognizer, *, most_items: int, clock: Callable[[], float] = time.perf_counter) -> Cost:
    """Measure what batches cost with a few batches of noise: single items, then more while that makes them faster."""
    noise = np.random.default_rng(0).standard_normal(int(PROBE_SECONDS * SAMPLE_RATE), np.float32)
    item = Audio(noise * np.float32(0.05))
    began = clock()

    def seconds(count: int) -> float:
        times = [clock()]
        while len(times) < 2 or (len(times) < 3 and (count == 1 or times[1] - times[0] < PROBE_AGAIN)):
            recognizer.recognize([item] * count)
            times.append(clock())
        return max(1e-6, min(after - before for before, after in pairwise(times)))

    single = seconds(1)
    count, several, gain = 1, single, float(most_items)
    while count < most_items and gain >= PROBE_GAIN and clock() - began + 4 * several < PROBE_TIME:
        speed = count / several
        count = min(4 * count, most_items)
        several = seconds(count)
        gain = count / several / speed
    more = (several - single) / (count - 1) if count > 1 else single
    item_time = max(more, LEAST_ITEM_SHARE * several / count)
    speed = PROBE_SECONDS / item_time
    return Cost(max(0.0, single * speed - PROBE_SECONDS), speed)


def full_batch_seconds(cost: Cost, *, longest: float, capacity: float | None) -> float:
    """Padded seconds of a full batch: enough to be efficient, and no more, since all callers wait for it.

    longest: seconds of the longest item, which always fits. capacity: padded seconds that fit into the device's memory;
    None if memory sets no limit.
    """
    best = min(cost.padded_for(BEST_SHARE), BEST_SHARE_TIME * cost.speed)
    wanted = max(longest, cost.padded_for(GOOD_SHARE), best)
    return max(longest, min(wanted, capacity)) if capacity is not None else wanted
