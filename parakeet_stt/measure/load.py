"""Puts a server under load: closed and open loops of requests, and what they find."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from parakeet_stt.measure.api import Answer, Clients, Target, transcribe
from parakeet_stt.measure.clips import Clip
from parakeet_stt.measure.normalizers import split_plain
from parakeet_stt.measure.word_errors import count_errors

WARM_SHARE = 0.25  # of a load, in which nothing is counted
# An answer is another clip's if more than half of its own words are wrong and at most a fifth of the other's.
OWN_WRONG, OTHER_WRONG = 0.5, 0.2


@dataclass(frozen=True)
class Request:
    """One request of a load. clip: its number. began, ended: by the monotonic clock; in an open loop began when due."""

    clip: int
    began: float
    ended: float
    answer: Answer

    @property
    def seconds(self) -> float:
        return self.ended - self.began


@dataclass(frozen=True)
class Loaded:
    """What one load finds, in the time that counts.

    load: what it is, in words. callers, rate: of it, the other is 0. requests: that began in that time. delays: of
    those with an answer, in seconds, sorted. rtfx: seconds of audio transcribed in a second. changed: answers that
    differ from the unloaded answer to the same clip. changed_words: words that differ, in percent of all. mixed_up: of
    those changed, answers that belong to another clip. errors: by their text.
    """

    load: str
    callers: int
    rate: float
    requests: int
    rtfx: float
    delays: tuple[float, ...]
    changed: int
    changed_words: float
    mixed_up: int
    errors: dict[str, int]

    @property
    def failed(self) -> int:
        return sum(self.errors.values())


def percentiles_ms(values: Sequence[float], *which: float) -> list[float]:
    """Percentiles, in ms, of values in seconds; NaN if there are no values."""
    return [round(1000 * float(value), 1) for value in np.percentile(values or [float("nan")], which)]


class Load:
    """Sends clips to a server for some seconds, the first quarter of which does not count."""

    def __init__(self, clients: Clients, target: Target, clips: Sequence[Clip], seconds: float) -> None:
        self._clients, self._target, self._clips = clients, target, clips
        self._pick = random.Random(1)
        now = time.monotonic()
        self.counting_from, self.until = now + seconds * WARM_SHARE, now + seconds
        self.requests: list[Request] = []

    async def run_closed(self, callers: int) -> None:
        """So many callers, each of which sends its next request when it has its answer, until the time is over."""

        async def call() -> None:
            while time.monotonic() < self.until:
                await self._send(time.monotonic())

        await asyncio.gather(*(call() for _ in range(callers)))

    async def run_open(self, rate: float) -> None:
        """Requests at random moments, `rate` a second in the mean, that wait for no answer. Ends with the last one."""
        due = time.monotonic()
        async with asyncio.TaskGroup() as group:
            while due < self.until:
                await asyncio.sleep(max(0.0, due - time.monotonic()))
                group.create_task(self._send(due))
                due += self._pick.expovariate(rate)

    async def _send(self, began: float) -> None:
        number = self._pick.randrange(len(self._clips))
        async with self._clients.one() as client:
            answer = await transcribe(client, self._target, self._clips[number])
        self.requests.append(Request(number, began, time.monotonic(), answer))

    def sum_up(self, unloaded: Sequence[str], *, callers: int = 0, rate: float = 0.0) -> Loaded:
        """What counts. unloaded: the answer to each clip when nothing else is asked."""
        counted = [one for one in self.requests if self.counting_from <= one.began < self.until]
        good = [one for one in counted if not one.answer.error]
        differences = [compare_text(one.answer.text, one.clip, unloaded) for one in good]
        words = sum(len(split_plain(unloaded[one.clip])) for one in good) if unloaded else 0
        return Loaded(
            load=f"{callers} callers" if callers else f"{rate:.2g} a second",
            callers=callers,
            rate=rate,
            requests=len(counted),
            rtfx=self._rtfx(),
            delays=tuple(sorted(one.seconds for one in good)),
            changed=sum(one.is_changed for one in differences),
            changed_words=100 * sum(one.words for one in differences) / max(1, words),
            mixed_up=sum(one.is_mixed_up for one in differences),
            errors=dict(Counter(one.answer.error for one in counted if one.answer.error)),
        )

    def _rtfx(self) -> float:
        """Audio of a request counts by how much of the request's time lies within the time that counts.

        So a request that outlasts the load is neither left out nor counted whole.
        """
        audio = 0.0
        for one in self.requests:
            if not one.answer.error:
                within = min(one.ended, self.until) - max(one.began, self.counting_from)
                audio += self._clips[one.clip].seconds * max(0.0, within) / max(one.seconds, 1e-9)
        return audio / (self.until - self.counting_from)


@dataclass(frozen=True)
class Difference:
    """How an answer under load differs from the unloaded one. words: that are wrong, plain."""

    is_changed: bool
    is_mixed_up: bool
    words: int


def compare_text(text: str, clip: int, unloaded: Sequence[str]) -> Difference:
    """An answer to `clip` under load, with the unloaded answers to all clips; without those nothing is changed."""
    if not unloaded or text == unloaded[clip]:
        return Difference(False, False, 0)
    found = split_plain(text)

    def share(other: str) -> float:
        said = split_plain(other)
        return count_errors(said, found).total / max(1, len(said), len(found))

    is_foreign = share(unloaded[clip]) > OWN_WRONG
    is_mixed_up = is_foreign and any(share(other) <= OTHER_WRONG for other in unloaded if other.strip())
    return Difference(True, is_mixed_up, count_errors(split_plain(unloaded[clip]), found).total)


async def measure_load(
    clients: Clients, target: Target, clips: Sequence[Clip], seconds: float, *, callers: int = 0,
    rate: float = 0.0, unloaded: Sequence[str] = (),
) -> Loaded:  # fmt: skip  # seven: the load is callers or rate
    """A closed loop of `callers`, or an open loop of `rate` requests a second, for so many seconds."""
    load = Load(clients, target, clips, seconds)
    await (load.run_closed(callers) if callers else load.run_open(rate))
    return load.sum_up(unloaded, callers=callers, rate=rate)
