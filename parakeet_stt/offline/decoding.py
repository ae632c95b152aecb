"""The words of one utterance: its hypothesis, and what other cuts find in the speech that this leaves without words."""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from parakeet_stt.audio import SAMPLE_RATE, Clip, Span
from parakeet_stt.offline.retry import MOST_ATTEMPTS, find_missed, plan_attempts
from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.protocols import HasAudio
from parakeet_stt.text.alignment import join_tokens
from parakeet_stt.text.coverage import Lost
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Word

U = TypeVar("U", bound=HasAudio)


class Recognize(Protocol):
    """Recognizes items; yields each with its hypothesis, in order. Closing the generator cancels the rest.

    phrases: to prefer in all items.
    """

    def __call__(self, items: AsyncIterator[U], *, phrases: Phrases) -> AsyncGenerator[tuple[U, Hypothesis], None]: ...


@dataclass(frozen=True, slots=True)
class Found:
    """What was found in an utterance. words: times in seconds from the start of the recording. lost: without words."""

    words: tuple[Word, ...]
    lost: tuple[Lost, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Retry:
    """A part of an utterance. start: seconds from the start of the utterance."""

    audio: Clip
    start: float


async def complete_words(
    utterance: Utterance,
    hypothesis: Hypothesis,
    *,
    recognize: Recognize,
    phrases: Phrases,
    onset: float,
    on_retry: Callable[[bool], None],
) -> Found:
    """The words of a hypothesis, and of the retries of speech that it leaves without words.

    onset: lowest probability that counts as speech. on_retry: called after each retry, with whether it found words.
    """
    retries = _Retries(utterance, recognize, phrases, onset)
    words = join_tokens(hypothesis.tokens, utterance.audio.duration)
    for span in find_missed(utterance, words, onset):
        found = await retries.find(span)
        on_retry(bool(found))
        words = tuple(sorted((*words, *found), key=lambda word: word.start))
    return Found(tuple(word.shift(utterance.start) for word in words), tuple(retries.lost))


class _Retries:
    """The retries of one utterance. lost: what they have left without words."""

    def __init__(self, utterance: Utterance, recognize: Recognize, phrases: Phrases, onset: float) -> None:
        self.lost: list[Lost] = []
        self._utterance = utterance
        self._recognize = recognize
        self._phrases = phrases
        self._onset = onset

    async def find(self, span: Span) -> list[Word]:
        """The words of a missed span, by one attempt after another; each is at what the one before has left."""
        utterance, found = self._utterance, list[Word]()
        left, tries = [span], 1
        while left and tries <= MOST_ATTEMPTS:
            plans = [plan_attempts(utterance, missed) for missed in left]
            if left == [span] and len(plans[0]) < tries:
                break  # there is no other cut
            missed_before, left = left, []
            for missed, plan in zip(missed_before, plans, strict=True):
                words = await self._decode(plan[min(tries, len(plan)) - 1])
                found += words
                left += find_missed(utterance, words, self._onset, within=missed)
            tries += 1
        begin = utterance.span.start
        self.lost += [Lost(Span(begin + missed.start, begin + missed.end), tries) for missed in left]
        return found

    async def _decode(self, cuts: Sequence[Span]) -> list[Word]:
        """The words of parts of the utterance, each decoded on its own."""
        retries = (_Retry(self._utterance.audio.slice(cut), cut.start / SAMPLE_RATE) for cut in cuts)
        async with aclosing(self._recognize(_as_async(retries), phrases=self._phrases)) as results:
            return [
                word.shift(retry.start)
                async for retry, hypothesis in results
                for word in join_tokens(hypothesis.tokens, retry.audio.duration)
            ]


async def _as_async(items: Iterable[U]) -> AsyncGenerator[U, None]:
    for item in items:
        yield item
