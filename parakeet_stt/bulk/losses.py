"""Counts the processes that were lost with what they worked on, to give up a recording that ends each of them.

Ray starts lost work again, however often it was lost, and does not tell it so. Hence the counts are in an actor of
their own. What was lost once is done again one by one, so that no neighbour is blamed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Hashable, Iterator
from contextlib import contextmanager
from typing import Any

import ray

from parakeet_stt.bulk.parts import Failure
from parakeet_stt.device.link import MAX_LOSSES


class _Counts:
    """How often each work was begun and not ended."""

    def __init__(self) -> None:
        self._begun = Counter[Hashable]()

    def begin(self, work: Hashable) -> int:
        self._begun[work] += 1
        return self._begun[work] - 1

    def end(self, work: Hashable) -> None:
        self._begun[work] -= 1
        if self._begun[work] <= 0:  # negative if this actor was lost meanwhile, with its counts
            del self._begun[work]


class Losses:
    """The lost processes of one run. Goes to all machines."""

    def __init__(self) -> None:
        """Starts the actor that counts; it ends when nobody knows this any more."""
        self._counts: Any = ray.remote(num_cpus=0, max_restarts=-1, max_task_retries=-1)(_Counts).remote()
        self._most = MAX_LOSSES

    @contextmanager
    def holding(self, *work: Hashable) -> Iterator[int]:
        """How many processes were lost with this work; one more if this one is lost before the context ends."""
        yield ray.get(self._counts.begin.remote(work))
        ray.get(self._counts.end.remote(work))

    def explain(self, losses: int, verb: str) -> Failure | None:
        """Why a recording is given up, if so many losses are too many. verb: what the lost processes did with it."""
        if losses < self._most:
            return None
        return Failure(
            "server_error",
            f"The process that {verb} this recording, and no other beside it, has ended {losses} times: "
            "it had too little memory, or it crashed.",
        )
