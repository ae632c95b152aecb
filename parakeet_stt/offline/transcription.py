"""The way of one recording: utterances → hypotheses → words → transcript.

Speech without words is decoded again with other cuts (retry.py). Words of utterances that overlap are merged
(overlap.py).

Reading the recording and recognizing utterances take time, so both are passed in. Making the transcript of a long
recording also goes through a thread of the caller's: hours of words would stall an event loop. For short recordings a
thread would cost more than the work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Protocol, TypeVar

from parakeet_stt.audio import SAMPLE_RATE, Clip, Span
from parakeet_stt.offline.coverage import Lost, measure_coverage
from parakeet_stt.offline.overlap import merge_overlap
from parakeet_stt.offline.retry import MOST_ATTEMPTS, find_missed, plan_attempts
from parakeet_stt.offline.utterances import Utterance, Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import HasAudio
from parakeet_stt.text.alignment import join_tokens, split_segments
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import Hypothesis, Recording, SpeechCoverage, Transcript, Word, WordList
from parakeet_stt.vad import Probabilities

T = TypeVar("T")
U = TypeVar("U", bound=HasAudio)
SHORT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    """What a caller may ask of a transcription.

    language: spoken language; None for the model's first. phrases: to prefer. rules: when audio counts as speech; None
    for the server's own. is_cut: False for one pass over the whole recording, whatever its length. short_first: whether
    the caller waits for the first words.
    """

    language: str | None = None
    phrases: Phrases = NO_PHRASES
    rules: SpeechRules | None = None
    is_cut: bool = True
    short_first: bool = False


class Recognize(Protocol):
    """Recognizes items; yields each with its hypothesis, in order. Closing the generator cancels the rest.

    phrases: to prefer in all items.
    """

    def __call__(self, items: AsyncIterator[U], *, phrases: Phrases) -> AsyncGenerator[tuple[U, Hypothesis], None]: ...


class RunInThread(Protocol):
    """Runs work that takes time, without stalling the event loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


@dataclass(frozen=True, slots=True, eq=False)
class _Retry:
    """A part of an utterance. start: seconds from the start of the utterance."""

    audio: Clip
    start: float


class Transcription:
    """One recording on its way to text: first its `words`, as they become final, then the whole `recording`.

    The recognizer gets speech only, with a little silence around it: models invent words for silence, and some give no
    words after too much of it. All times count from the start of the recording.
    blocks: the recording as it is read; each gives the probabilities of speech in the windows that it completes.
    language: of the transcript. phrases: to prefer. on_retry: called after each retry of speech without words, with
    whether it found words. on_coverage, is_truncated: called at the end.
    """

    def __init__(
        self,
        utterances: Utterances,
        blocks: AsyncIterator[Probabilities],
        *,
        recognize: Recognize,
        run_in_thread: RunInThread,
        language: str,
        phrases: Phrases = NO_PHRASES,
        on_retry: Callable[[bool], None] = lambda _: None,
        on_coverage: Callable[[SpeechCoverage], None] = lambda _: None,
        is_truncated: Callable[[], bool] = lambda: False,
    ) -> None:  # nine parameters: what it calls, and what the caller asked for; each is used on its own
        self._utterances = utterances
        self._blocks = blocks
        self._recognize = recognize
        self._run_in_thread = run_in_thread
        self._language = language
        self._phrases = phrases
        self._on_retry = on_retry
        self._on_coverage = on_coverage
        self._is_truncated = is_truncated
        self._words = WordList()
        self._lost: list[Lost] = []

    async def words(self) -> AsyncGenerator[tuple[Word, ...], None]:
        """Yield the words of each utterance that has any, in order. Closing the generator cancels the rest."""
        async with (
            aclosing(self._read()) as utterances,
            aclosing(self._recognize(utterances, phrases=self._phrases)) as results,
        ):
            tail: tuple[Word, ...] = ()  # words in the overlap with the next utterance
            overlap = 0.0
            async for utterance, hypothesis in results:
                decoded = join_tokens(hypothesis.tokens, utterance.audio.duration)
                complete = await self._retry_missed(utterance, decoded)
                self._utterances.release()
                words = tuple(word.shift(utterance.start) for word in complete)
                if overlap:
                    words = merge_overlap(tail, words, utterance.start, utterance.start + overlap)
                overlap = utterance.overlap
                tail = tuple(word for word in words if overlap and word.end > utterance.end - overlap)
                words = words[: len(words) - len(tail)]
                if words:
                    self._words.extend(words)
                    yield words
            if tail:
                self._words.extend(tail)
                yield tail

    async def recording(self) -> Recording:
        """The result, once `words` is exhausted."""
        is_short = self._utterances.duration <= SHORT_SECONDS
        recording = self._make_recording() if is_short else await self._run_in_thread(self._make_recording)
        self._on_coverage(recording.speech)
        return recording

    async def _retry_missed(self, utterance: Utterance, words: tuple[Word, ...]) -> tuple[Word, ...]:
        """Add the words that retries find. Times in seconds from the start of the utterance."""
        for span in find_missed(utterance, words, self._utterances.rules.onset):
            found = await self._retry(utterance, span)
            self._on_retry(bool(found))
            words = tuple(sorted((*words, *found), key=lambda word: word.start))
        return words

    async def _retry(self, utterance: Utterance, span: Span) -> list[Word]:
        """The words of a missed span, by one attempt after another; each is at what the one before has left."""
        found: list[Word] = []
        left, tries = [span], 1
        while left and tries <= MOST_ATTEMPTS:
            plans = [plan_attempts(utterance, missed) for missed in left]
            if left == [span] and len(plans[0]) < tries:
                break  # there is no other cut
            missed_before, left = left, []
            for missed, plan in zip(missed_before, plans, strict=True):
                words = await self._decode(utterance, plan[min(tries, len(plan)) - 1])
                found += words
                left += find_missed(utterance, words, self._utterances.rules.onset, within=missed)
            tries += 1
        for missed in left:
            begin = utterance.span.start
            self._lost.append(Lost(Span(begin + missed.start, begin + missed.end), tries))
        return found

    async def _decode(self, utterance: Utterance, cuts: Sequence[Span]) -> list[Word]:
        """The words of parts of an utterance, each decoded on its own."""
        retries = (_Retry(utterance.audio.slice(cut), cut.start / SAMPLE_RATE) for cut in cuts)
        async with aclosing(self._recognize(_as_async(retries), phrases=self._phrases)) as results:
            return [
                word.shift(retry.start)
                async for retry, hypothesis in results
                for word in join_tokens(hypothesis.tokens, retry.audio.duration)
            ]

    async def _read(self) -> AsyncGenerator[Utterance, None]:
        """The utterances; reads the recording as far as the next one needs."""
        for utterance in self._utterances:
            if utterance is not None:
                yield utterance
            elif (probabilities := await anext(self._blocks, None)) is not None:
                self._utterances.push(probabilities)
            else:
                self._utterances.finish()

    def _make_recording(self) -> Recording:
        words = self._words
        transcript = Transcript(words, split_segments(words), self._utterances.duration, self._language)
        probabilities = self._utterances.probabilities
        speech = measure_coverage(probabilities, words, self._lost, self._utterances.rules.onset)
        return Recording(transcript, probabilities, self._is_truncated(), speech)


async def _as_async(items: Iterable[U]) -> AsyncGenerator[U, None]:
    for item in items:
        yield item
