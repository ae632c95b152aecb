"""Knows the way of a recording: utterances → hypotheses → words → transcript. Does not know who asks, nor threads.

Where speech was heard and no word came, another cut is tried (rescue.py); where two utterances overlap, their words are
joined (seams.py).

Finding utterances and recognizing them take time; both are handed in. What is computed here goes through the caller's
threads for long recordings, since for hours of words it takes long enough to stall an event loop; for short ones the
thread would cost more than the work.
"""

from __future__ import annotations

from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from itertools import islice
from typing import Protocol, TypeVar

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.offline.overlap import joined
from parakeet_stt.offline.retry import attempts, missed
from parakeet_stt.offline.utterances import Probabilities, Utterance, Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.text.alignment import segments_of, words_of
from parakeet_stt.text.phrases import NONE, Phrases
from parakeet_stt.text.transcript import Hypothesis, Transcript, Word, Words

T = TypeVar("T")
SHORT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of one recording: its text, and the speech probability of each window of 32 ms.

    is_truncated: whether the file ended before what it announces.
    """

    transcript: Transcript
    probabilities: Probabilities
    is_truncated: bool = False


@dataclass(frozen=True, slots=True)
class Options:
    """What a caller may ask of a transcription.

    language: what is spoken; None for the model's first. phrases: what to listen for. rules: when sound counts as
    speech; None for the server's own. cut: False for one pass over the whole, whatever its length. soon: whether the
    first words of a long recording are waited for.
    """

    language: str | None = None
    phrases: Phrases = NONE
    rules: SpeechRules | None = None
    cut: bool = True
    soon: bool = False


class Recognize(Protocol):
    """Utterances to their hypotheses, in order; closing the generator gives up those that are left.

    again: whether they belong to a recording that has been let in.
    """

    def __call__(
        self, utterances: AsyncIterator[Audio], *, phrases: Phrases, again: bool = False
    ) -> AsyncGenerator[Hypothesis, None]: ...


class InThread(Protocol):
    """The result of some work that takes time, done where it keeps nobody waiting."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


class Transcription:
    """One recording on its way: first its `words`, as they become final, then the whole `recording`.

    The recognizer hears speech only, with a little silence around it: models invent words for silence, and some say
    nothing at all after too much of it. Every time is counted from the start of the recording.
    language: as the transcript shall name it. phrases: what to listen for. on_rescue: called for each
    stretch of speech without a word, with whether another cut has given one. is_truncated: asked at the end.
    """

    def __init__(
        self,
        utterances: Utterances,
        *,
        recognize: Recognize,
        in_thread: InThread,
        language: str,
        phrases: Phrases = NONE,
        on_rescue: Callable[[bool], None] = lambda _: None,
        is_truncated: Callable[[], bool] = lambda: False,
    ) -> None:
        self._utterances = utterances
        self._recognize = recognize
        self._in_thread = in_thread
        self._language = language
        self._phrases = phrases
        self._on_rescue = on_rescue
        self._is_truncated = is_truncated
        self._words = Words()

    async def words(self) -> AsyncGenerator[tuple[Word, ...], None]:
        """The words of each utterance in which there are any, in order. Closing it gives up the rest."""
        first = await self._in_thread(self._first)
        places: deque[Utterance] = deque()
        async with (
            aclosing(self._all(first, places)) as utterances,
            aclosing(self._recognize(utterances, phrases=self._phrases)) as hypotheses,
        ):
            tail: tuple[Word, ...] = ()  # what the next utterance has heard too
            overlap = 0.0
            async for hypothesis in hypotheses:
                place = places.popleft()
                found = await self._complete(place, words_of(hypothesis.tokens, place.audio.duration))
                words = tuple(word.shifted(place.start) for word in found)
                if overlap:
                    words = joined(tail, words, place.start, place.start + overlap)
                overlap = place.overlap
                tail = tuple(word for word in words if overlap and word.end > place.end - overlap)
                words = words[: len(words) - len(tail)]
                if words:
                    self._words.add(words)
                    yield words
            if tail:
                self._words.add(tail)
                yield tail

    async def recording(self) -> Recording:
        """All of it, once there are no more words."""
        if self._utterances.duration <= SHORT_SECONDS:
            return self._whole()
        return await self._in_thread(self._whole)

    async def _complete(self, place: Utterance, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """The words, and those that are found where speech has none. Times from the start of the utterance."""
        for span in missed(place, words, self._utterances.rules.onset):
            more: tuple[Word, ...] = ()
            for cuts in attempts(place, span):
                hypotheses = self._recognize(_each(place.audio.cut(cut) for cut in cuts), phrases=self._phrases,
                                             again=True)  # fmt: skip
                async with aclosing(hypotheses):
                    found = [hypothesis async for hypothesis in hypotheses]
                more = tuple(
                    word.shifted(cut.start / SAMPLE_RATE)
                    for cut, hypothesis in zip(cuts, found, strict=True)
                    for word in words_of(hypothesis.tokens, cut.length / SAMPLE_RATE)
                )
                if more:
                    break
            self._on_rescue(bool(more))
            words = tuple(sorted((*words, *more), key=lambda word: word.start))
        return words

    def _first(self) -> list[Utterance]:
        """The first utterance, or all that are left once everything is read: a short recording's in one go."""
        first = list(islice(self._utterances, 1))
        return [*first, *self._utterances] if self._utterances.is_read else first

    async def _all(self, first: list[Utterance], places: deque[Utterance]) -> AsyncGenerator[Audio, None]:
        for utterance in first:
            places.append(utterance)
            yield utterance.audio
        if self._utterances.is_read:
            return
        while (more := await self._in_thread(partial(next, self._utterances, None))) is not None:
            places.append(more)
            yield more.audio

    def _whole(self) -> Recording:
        words = self._words
        transcript = Transcript(words, segments_of(words), self._utterances.duration, self._language)
        return Recording(transcript, self._utterances.probabilities, self._is_truncated())


async def _each(audio: Iterable[Audio]) -> AsyncGenerator[Audio, None]:
    for one in audio:
        yield one
