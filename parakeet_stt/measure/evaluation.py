"""Has a server transcribe a manifest's recordings, and counts its errors."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from collections.abc import Callable, Collection
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import islice

import httpx

from parakeet_stt.measure.api import Clients, Target, transcribe_patiently
from parakeet_stt.measure.clips import Clip, UnreadableAudio, load
from parakeet_stt.measure.manifests import BadManifest, Manifest, Recording
from parakeet_stt.measure.normalizers import Normalizer
from parakeet_stt.measure.word_errors import Errors, Pair, align, bootstrap, count_pairs
from parakeet_stt.measure.word_times import TimeErrors, measure_times, summarize


@dataclass(frozen=True)
class Outcome:
    """One recording at one server.

    pairs: the aligned words, normalized. failure: a sentence, empty if there is a transcript. took: seconds.
    """

    index: int
    name: str
    seconds: float
    said: str
    found: str = ""
    pairs: tuple[Pair, ...] = ()
    times: tuple[tuple[float, float], ...] = ()
    lacks_times: bool = False  # the manifest has the words' times, the answer has not
    took: float = 0.0
    failure: str = ""

    @cached_property
    def errors(self) -> Errors:
        return count_pairs(self.pairs)

    @property
    def counts(self) -> bool:
        """Whether it is part of the rate: it has a transcript, and words that could be wrong."""
        return not self.failure and self.errors.words > 0


@dataclass(frozen=True)
class Rules:
    """How to ask and how to count. limit: so many recordings of each manifest; 0 for all. concurrency: requests."""

    normalizer: Normalizer
    concurrency: int = 8
    language: str = ""
    limit: int = 0
    timeout: float = 900.0


@dataclass(frozen=True)
class Result:
    """A manifest at a server. outcomes: in the manifest's order. elapsed: seconds for all."""

    manifest: str
    target: Target
    outcomes: tuple[Outcome, ...]
    elapsed: float

    @cached_property
    def errors(self) -> Errors:
        """Of the recordings that count."""
        return sum((one.errors for one in self.counted), Errors())

    @cached_property
    def counted(self) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.counts)

    @cached_property
    def interval(self) -> tuple[float, float]:
        """95 % confidence interval of the rate, in percent."""
        return bootstrap([one.errors for one in self.counted])

    @cached_property
    def failures(self) -> tuple[Outcome, ...]:
        return tuple(one for one in self.outcomes if one.failure)

    @cached_property
    def wordless(self) -> tuple[Outcome, ...]:
        """Recordings in which nothing is said, after normalizing: not part of the rate."""
        return tuple(one for one in self.outcomes if not one.failure and not one.errors.words)

    @property
    def seconds(self) -> float:
        """Of audio that was transcribed."""
        return sum(one.seconds for one in self.outcomes if not one.failure)

    @property
    def rtfx(self) -> float:
        """Seconds of audio transcribed in a second, with so many requests at once."""
        return self.seconds / self.elapsed

    @cached_property
    def times(self) -> TimeErrors | None:
        return summarize([error for one in self.outcomes for error in one.times])

    @property
    def notes(self) -> list[str]:
        """What was not measured, and what was left out."""
        found = []
        if self.failures:
            reasons = Counter(one.failure for one in self.failures)
            why = "; ".join(f"{count} × {reason}" for reason, count in reasons.most_common(3))
            found.append(f"{len(self.failures)} recordings have no transcript and do not count: {why}")
        if self.wordless:
            invented = sum(one.errors.insertions for one in self.wordless)
            found.append(f"{len(self.wordless)} recordings without words do not count; {invented} words found in them")
        if any(one.lacks_times for one in self.outcomes):
            found.append("word times are not measured: the manifest has them, the server's answers have not")
        return found

    def most_frequent(self, count: int = 10) -> list[tuple[Pair, int]]:
        """The most frequent errors: words and what was found instead."""
        wrong = Counter(pair for one in self.counted for pair in one.pairs if pair[0] != pair[1])
        return wrong.most_common(count)


class _Feed:
    """The recordings of a manifest, read one after another for whoever takes the next."""

    def __init__(self, manifest: Manifest, limit: int) -> None:
        self._recordings = enumerate(islice(manifest, limit or None))
        self._lock = asyncio.Lock()
        self.error: BadManifest | None = None  # ends the feed

    async def take(self) -> tuple[int, Recording, Clip | str] | None:
        """The next recording's number, itself, and its file or why that can't be read; None at the end."""
        async with self._lock:
            return await asyncio.to_thread(self._read)

    def _read(self) -> tuple[int, Recording, Clip | str] | None:
        try:
            index, recording = next(self._recordings)
        except StopIteration:
            return None
        except BadManifest as error:
            self.error = error
            return None
        try:
            return index, recording, load(recording)
        except UnreadableAudio as error:
            return index, recording, str(error)


async def evaluate(
    manifest: Manifest, target: Target, rules: Rules, when_done: Callable[[Outcome], None] = lambda outcome: None
) -> Result:
    """Raises BadManifest. when_done: called after each recording."""
    outcomes: list[Outcome] = []
    feed = _Feed(manifest, rules.limit)
    began = time.monotonic()

    async def work(clients: Clients) -> None:
        while (taken := await feed.take()) is not None:
            index, recording, clip = taken
            if isinstance(clip, str):
                outcome = Outcome(index, recording.name, recording.duration or 0.0, recording.text, failure=clip)
            else:
                async with clients.one() as client:
                    outcome = await _transcribe_one(client, target, rules, (index, recording, clip))
            outcomes.append(outcome)
            when_done(outcome)

    async with Clients(rules.timeout) as clients, asyncio.TaskGroup() as group:
        for _ in range(rules.concurrency):
            group.create_task(work(clients))
    if feed.error:
        raise feed.error
    return Result(manifest.name, target, tuple(sorted(outcomes, key=lambda one: one.index)), time.monotonic() - began)


async def _transcribe_one(
    client: httpx.AsyncClient, target: Target, rules: Rules, taken: tuple[int, Recording, Clip]
) -> Outcome:
    index, recording, clip = taken
    answer = await transcribe_patiently(client, target, clip, words=bool(recording.words), language=rules.language)
    plain = Outcome(index, recording.name, clip.seconds, recording.text, took=answer.seconds, failure=answer.error)
    if answer.error:
        return plain
    return replace(
        plain,
        found=answer.text,
        pairs=tuple(align(rules.normalizer(recording.text), rules.normalizer(answer.text))),
        times=tuple(measure_times(recording.words, answer.words)),
        lacks_times=bool(recording.words) and not answer.words,
    )


def load_again(manifest: Manifest, indices: Collection[int]) -> dict[int, Clip]:
    """The files of some recordings, by their numbers. A file that can't be read any more is left out."""
    found: dict[int, Clip] = {}
    for index, recording in enumerate(manifest):
        if len(found) == len(indices):
            break
        if index in indices:
            with suppress(UnreadableAudio):
                found[index] = load(recording)
    return found
