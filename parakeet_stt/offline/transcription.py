"""The way of one recording: utterances → hypotheses → words → transcript.

Speech without words is decoded again with other cuts (retry.py). Words of utterances that overlap are merged
(overlap.py).

Reading the recording and recognizing utterances take time, so both are passed in. Making the transcript of a long
recording also goes through a thread of the caller's: hours of words would stall an event loop. For short recordings a
thread would cost more than the work.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from parakeet_stt.offline.decoding import Recognize, complete_words
from parakeet_stt.offline.diarization import Diarization
from parakeet_stt.offline.overlap import OverlapMerger
from parakeet_stt.offline.utterances import Utterance, Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.text.alignment import split_segments
from parakeet_stt.text.coverage import Lost, measure_coverage
from parakeet_stt.text.lazy_sequence import DeferredSequence
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.speakers import Turns
from parakeet_stt.text.transcript import Recording, Segment, SpeechCoverage, Transcript, Word, WordList
from parakeet_stt.vad import Probabilities

T = TypeVar("T")
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


class RunInThread(Protocol):
    """Runs work that takes time, without stalling the event loop."""

    def __call__(self, work: Callable[[], T]) -> Awaitable[T]: ...


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
            merger = OverlapMerger()
            async for utterance, hypothesis in results:
                found = await complete_words(
                    utterance,
                    hypothesis,
                    recognize=self._recognize,
                    phrases=self._phrases,
                    onset=self._utterances.rules.onset,
                    on_retry=self._on_retry,
                )
                self._utterances.release()
                self._lost += found.lost
                words = merger.push(found.words, utterance)
                if words:
                    self._add(words)
                    yield words
            if tail := merger.finish():
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
        return make_recording(
            self._words,
            self._utterances.probabilities,
            self._utterances.duration,
            language=self._language,
            detect_language=self._detect_language,
            lost=self._lost,
            onset=self._utterances.rules.onset,
            is_truncated=self._is_truncated(),
            turns=self._turns,
        )


def make_recording(
    words: WordList,
    probabilities: Probabilities,
    duration: float,
    *,
    language: str | None,
    detect_language: Callable[[str], str | None],
    lost: Sequence[Lost],
    onset: float,
    is_truncated: bool,
    turns: Turns | None = None,
) -> Recording:  # what was found in a recording, each on its own
    """The result, of all words of a recording; see `Transcription`, and `Recording` for what becomes of the others."""
    language = language or detect_language(words.text)
    # Most answers have no segments, and to look for ends of sentences costs nearly as much as to join words.
    segments = turns.segments() if turns else DeferredSequence(partial(split_segments, words, language))
    transcript = Transcript(words, segments, duration, language, turns.speakers if turns else None)
    return Recording(transcript, probabilities, is_truncated, measure_coverage(probabilities, words, lost, onset))
