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
from parakeet_stt.offline.diarization import Diarization
from parakeet_stt.offline.overlap import merge_overlap
from parakeet_stt.offline.retry import MOST_ATTEMPTS, find_missed, plan_attempts
from parakeet_stt.offline.utterances import Utterance, Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import HasAudio
from parakeet_stt.text.alignment import join_tokens, split_segments
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.speakers import Turns
from parakeet_stt.text.transcript import Hypothesis, Recording, Segment, SpeechCoverage, Transcript, Word, WordList
from parakeet_stt.vad import Probabilities

T = TypeVar("T")
U = TypeVar("U", bound=HasAudio)
SHORT_SECONDS = 60


@dataclass(frozen=True, slots=True)
class KnownSpeaker:
    """Somebody whose voice the caller knows. reference: a media file of some seconds in which only they speak."""

    name: str
    reference: bytes


@dataclass(frozen=True, slots=True)
class TranscriptionOptions:
    """What a caller may ask of a transcription.

    language: spoken language; None for not named. phrases: to prefer. rules: when audio counts as speech; None
    for the server's own. is_cut: False for one pass over the whole recording, whatever its length. short_first: whether
    the caller waits for the first words. separate_channels: transcribe each channel on its own, as one speaker.
    speakers: tell who says each word. known: speakers who are to be called by their names.
    """

    language: str | None = None
    phrases: Phrases = NO_PHRASES
    rules: SpeechRules | None = None
    is_cut: bool = True
    short_first: bool = False
    separate_channels: bool = False
    speakers: bool = False
    known: tuple[KnownSpeaker, ...] = ()


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
    language: of the transcript; None to have its text tell, by `detect_language`, called in a thread. phrases: to
    prefer. on_retry: called after each retry of speech without words, with whether it found words. on_coverage,
    is_truncated: called at the end. diarization: tells who says each word; None where nobody asked.
    """

    def __init__(
        self,
        utterances: Utterances,
        blocks: AsyncIterator[Probabilities],
        *,
        recognize: Recognize,
        run_in_thread: RunInThread,
        language: str | None,
        detect_language: Callable[[str], str | None] = lambda _: None,
        phrases: Phrases = NO_PHRASES,
        on_retry: Callable[[bool], None] = lambda _: None,
        on_coverage: Callable[[SpeechCoverage], None] = lambda _: None,
        is_truncated: Callable[[], bool] = lambda: False,
        diarization: Diarization | None = None,
    ) -> None:  # eleven parameters: what it calls, and what the caller asked for; each is used on its own
        self._utterances = utterances
        self._blocks = blocks
        self._recognize = recognize
        self._run_in_thread = run_in_thread
        self._language = language
        self._detect_language = detect_language
        self._phrases = phrases
        self._on_retry = on_retry
        self._on_coverage = on_coverage
        self._is_truncated = is_truncated
        self._words = WordList()
        self._diarization = diarization
        self._turns = Turns(self._words, diarization.frames, diarization.names, language) if diarization else None
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
                    self._add(words)
                    yield words
            if tail:
                self._add(tail)
                yield tail
        if self._turns:
            self._turns.advance(is_over=True)

    async def segments(self) -> AsyncGenerator[Sequence[Segment], None]:
        """In place of `words`, where there is a diarization: segments of one speaker each, as they become final."""
        assert self._turns is not None
        async with aclosing(self.words()) as pieces:
            async for _ in pieces:
                if segments := self._turns.take():
                    yield segments
        if segments := self._turns.take():
            yield segments

    async def recording(self) -> Recording:
        """The result, once `words` is exhausted."""
        is_short = self._utterances.duration <= SHORT_SECONDS and self._language is not None
        recording = self._make_recording() if is_short else await self._run_in_thread(self._make_recording)
        self._on_coverage(recording.speech)
        return recording

    def _add(self, words: tuple[Word, ...]) -> None:
        self._words.extend(words)
        if self._turns:
            self._turns.advance()

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
                continue
            if self._diarization:
                await self._diarization.advance()
            if (probabilities := await anext(self._blocks, None)) is not None:
                self._utterances.push(probabilities)
            else:
                self._utterances.finish()
        if self._diarization:
            await self._diarization.finish()

    def _make_recording(self) -> Recording:
        words = self._words
        language = self._language or self._detect_language(words.text)
        turns, probabilities = self._turns, self._utterances.probabilities
        segments = turns.segments() if turns else split_segments(words, language)
        transcript = Transcript(words, segments, self._utterances.duration, language, turns.speakers if turns else None)
        speech = measure_coverage(probabilities, words, self._lost, self._utterances.rules.onset)
        return Recording(transcript, probabilities, self._is_truncated(), speech)


async def _as_async(items: Iterable[U]) -> AsyncGenerator[U, None]:
    for item in items:
        yield item
