"""The scheduler: the order in which queued audio goes to the device, and what is batched. No thread, no clock."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from typing import Generic, TypeVar

from parakeet_stt.protocols import Priority

T = TypeVar("T")
PATIENCE = 4  # batches of other classes that a waiting class lets pass before the next batch is its own
CONSIDERED = 4  # times the items of the largest batch: how many of the earliest items a batch is picked from


@dataclass(frozen=True, slots=True)
class BatchLimits:
    """How large one batch may be.

    seconds: of audio, padding included; one item of any length is always a batch. items: number of items.
    overhead: fixed cost of a batch, as the seconds of audio that would cost as much.
    """

    seconds: float
    items: int
    overhead: float


@dataclass(frozen=True, slots=True, eq=False)
class Entry(Generic[T]):
    """A queued item. tag: its place in the order of its class, in the virtual time of that."""

    seconds: float
    content: T
    tag: float
    owner: Hashable = None


class _Class(Generic[T]):
    """The queued entries of one priority, shared fairly among their owners.

    Fair queueing (Demers, Keshav and Shenker, 1989): virtual time grows by what is decoded, divided by the number of
    owners that wait. An entry of a recording has as its tag the virtual time at which equal shares would have decoded
    its owner's audio to its end. So no owner gets ahead by queueing more, and a clip passes the first utterances of
    long recordings, however many there are. Live chunks are all due at once: they have the time at which they would
    begin.
    """

    def __init__(self, priority: Priority) -> None:
        self.entries: list[Entry[T]] = []
        self.passed_over = 0
        self._is_live = priority is Priority.LIVE
        self._now = 0.0
        self._finish: dict[Hashable, float] = {}

    def add(self, owner: Hashable, seconds: float, content: T) -> None:
        start = max(self._now, self._finish.get(owner, 0.0))
        self._finish[owner] = start + seconds
        self.entries.append(Entry(seconds, content, start if self._is_live else start + seconds, owner))

    def take(self, limits: BatchLimits) -> list[Entry[T]]:
        earliest = heapq.nsmallest(CONSIDERED * limits.items, self.entries, key=lambda entry: entry.tag)
        taken = pick_batch(earliest, limits)
        owners = {entry.owner for entry in self.entries}
        left = set(map(id, taken))
        self.entries = [entry for entry in self.entries if id(entry) not in left]
        if self._is_live:
            self._now = max(self._now, earliest[0].tag)
        else:
            self._now += sum(entry.seconds for entry in taken) / len(owners)
        self._finish = {owner: end for owner, end in self._finish.items() if end > self._now}
        self.passed_over = 0
        return taken


class Scheduler(Generic[T]):
    """The queue of one device. A batch holds items of one priority, and of one kind.

    The highest priority goes first, and of it the lowest kind. A class that was passed over `PATIENCE` times in a row
    gets the next batch, so that it gets at least one batch in five.
    """

    def __init__(self) -> None:
        self._classes: dict[tuple[Priority, int], _Class[T]] = {}

    def __len__(self) -> int:
        return sum(len(waiting.entries) for waiting in self._classes.values())

    def add(self, content: T, *, seconds: float, priority: Priority, owner: Hashable, kind: int = 0) -> None:
        """Queue `content`. owner: entries with equal owners are one flow."""
        self._classes.setdefault((priority, kind), _Class(priority)).add(owner, seconds, content)

    def discard(self, is_obsolete: Callable[[T], bool]) -> None:
        """Remove obsolete entries."""
        for waiting in self._classes.values():
            waiting.entries = [entry for entry in waiting.entries if not is_obsolete(entry.content)]

    def take(self, limits: BatchLimits) -> list[T]:
        """The next batch, the longest item last; empty if the queue is."""
        waiting = [self._classes[key] for key in sorted(self._classes) if self._classes[key].entries]
        if not waiting:
            return []
        chosen = next((one for one in waiting if one.passed_over >= PATIENCE), waiting[0])
        for one in waiting:
            one.passed_over += one is not chosen
        return [entry.content for entry in chosen.take(limits)]


def pick_batch(entries: list[Entry[T]], limits: BatchLimits) -> list[Entry[T]]:
    """The batch that decodes the most audio a second, among those that hold the first of `entries`.

    A batch's time is modelled as proportional to overhead + padded seconds; the padded seconds are the number of items
    times the longest of them. In order of length, the best batch is a run of neighbours.
    """
    by_length = sorted(entries, key=lambda entry: entry.seconds)
    start = by_length.index(entries[0])
    best, best_rate = (start, start), -1.0
    for last in range(start, len(by_length)):
        longest = by_length[last].seconds
        most = max(1, min(limits.items, int(limits.seconds / longest) if longest else limits.items))
        if last - start >= most:
            break
        real = 0.0
        for first in range(last, max(-1, last - most), -1):
            real += by_length[first].seconds
            rate = real / (limits.overhead + longest * (last - first + 1))
            if first <= start and rate >= best_rate:
                best, best_rate = (first, last), rate
    return by_length[best[0] : best[1] + 1]
