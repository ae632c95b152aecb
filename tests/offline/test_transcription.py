"""The way of a recording, over a recognizer and a detector written by hand that see what they are asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from typing import TypeVar

import numpy as np
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio, AudioBuffer, Samples
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.errors import RecognitionError
from parakeet_stt.ipc.shared_audio import SharedAudio, SharedClip
from parakeet_stt.offline.transcription import Transcription, make_recording
from parakeet_stt.offline.utterances import Utterances, cut_blocks
from parakeet_stt.offline.vad_segments import SpeechRules, utterance_spans
from parakeet_stt.protocols import DetectorStates, HasAudio
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Recording, Token, Word, WordList
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities, Windows

T = TypeVar("T")
U = TypeVar("U", bound=HasAudio)
LIMIT = 10.0
BLOCK = SAMPLE_RATE  # of the blocks that a recording comes in


async def at_once(work: Callable[[], T]) -> T:
    return work()


class FakeRecording:
    """A recording of which only the detector's probabilities are known. Answers one word an utterance, from 0.08 s on.

    read: the samples that have been read. most_stored: and the most of them that could not be forgotten yet.
    """

    def __init__(self, probabilities: Probabilities, *, longest: float | None = LIMIT) -> None:
        self.given = probabilities
        self.durations: list[float] = []
        self.fails_at = 0
        self.closed = False
        self.numbers = itertools.count()
        self.read = 0
        self.most_stored = 0
        self.audio = AudioBuffer()
        self.utterances = Utterances(self.audio, rules=SpeechRules(), longest=longest)

    async def blocks(self) -> AsyncGenerator[Probabilities, None]:
        total = len(self.given) * WINDOW_SAMPLES
        for start in range(0, total, BLOCK):
            before, self.read = self.read, min(total, start + BLOCK)
            self.audio.append(np.zeros(self.read - before, np.float32))
            self.most_stored = max(self.most_stored, self.audio.stored)
            yield self.given[before // WINDOW_SAMPLES : self.read // WINDOW_SAMPLES]

    def transcription(self, on_retry: Callable[[bool], None] = lambda _: None) -> Transcription:
        return Transcription(
            self.utterances, self.blocks(), recognize=self.recognize, run_in_thread=at_once, language="en",
            on_retry=on_retry,
        )  # fmt: skip

    async def recognize(
        self, items: AsyncIterator[U], *, phrases: Phrases
    ) -> AsyncGenerator[tuple[U, Hypothesis], None]:
        try:
            async for item in items:
                audio = item.audio
                self.durations.append(audio.duration)
                if len(self.durations) == self.fails_at:
                    raise RecognitionError("no")
                number = next(self.numbers)
                yield item, Hypothesis((Token(number, f"▁w{number}.", 0.08, audio.duration, -0.1),))
        finally:
            self.closed = True

    def transcribe(self) -> Recording:
        async def main() -> Recording:
            transcription = self.transcription()
            self.pieces = [" ".join(word.text for word in words) async for words in transcription.words()]
            return await transcription.recording()

        return asyncio.run(main())


def talk(*parts: tuple[float, float]) -> Probabilities:
    """(probability, seconds) one after another."""
    counts = [(p, round(seconds * SAMPLE_RATE / WINDOW_SAMPLES)) for p, seconds in parts]
    return np.concatenate([np.full(count, p, np.float32) for p, count in counts])


def test_silence_is_not_recognized_at_all() -> None:
    fake = FakeRecording(talk((0.01, 60)))
    assert fake.transcribe().transcript.text == ""
    assert fake.durations == []


def test_what_fits_into_one_utterance_goes_at_once_without_the_silence_around_it() -> None:
    fake = FakeRecording(talk((0.0, 2), (0.9, 1), (0.0, 1), (0.9, 2), (0.0, 3)))
    transcript = fake.transcribe().transcript
    assert fake.durations == [pytest.approx(4.4, abs=0.1)]
    assert [word.start for word in transcript.words] == [pytest.approx(1.88, abs=0.05)]


def test_longer_audio_is_cut_at_pauses_with_exact_offsets() -> None:
    fake = FakeRecording(talk(*[(0.9, 6), (0.0, 2)] * 10))
    transcript = fake.transcribe().transcript
    assert len(fake.durations) == 10
    assert max(fake.durations) <= LIMIT
    assert transcript.text == " ".join(f"w{n}." for n in range(10))
    starts = [word.start for word in transcript.words]
    assert starts == [pytest.approx(max(8 * n - 0.2, 0) + 0.08, abs=0.05) for n in range(10)]


def test_cut_false_sends_everything_at_once() -> None:
    fake = FakeRecording(talk(*[(0.9, 6), (0.0, 2)] * 3), longest=None)
    fake.transcribe()
    assert fake.durations == [pytest.approx(22.2, abs=0.1)]


def test_a_failing_utterance_fails_its_recording_and_the_rest_is_given_up() -> None:
    fake = FakeRecording(talk(*[(0.9, 6), (0.0, 2)] * 5))
    fake.fails_at = 2
    with pytest.raises(RecognitionError):
        fake.transcribe()
    assert len(fake.durations) == 2
    assert fake.closed


def test_words_come_out_before_the_rest_is_read() -> None:
    fake = FakeRecording(talk(*[(0.9, 6), (0.0, 2)] * 100))

    async def main() -> None:
        words = fake.transcription().words()
        await anext(words)
        await words.aclose()

    asyncio.run(main())
    assert fake.read < 40 * SAMPLE_RATE
    assert fake.closed


def test_hours_are_held_no_longer_than_an_utterance_needs() -> None:
    fake = FakeRecording(talk(*[(0.9, 6), (0.0, 2), (0.9, 25), (0.0, 600)] * 6))
    recording = fake.transcribe()
    assert recording.transcript.duration == pytest.approx(6 * 633, abs=0.1)
    assert len(recording.probabilities) == len(fake.given)
    assert fake.most_stored <= 4 * LIMIT * SAMPLE_RATE  # an utterance, a pause, what may follow
    assert " ".join(fake.pieces) == recording.transcript.text


class KnownProbabilities:
    """A detector that gives these probabilities one after another; see `protocols.SpeechDetector`."""

    def __init__(self, probabilities: Probabilities) -> None:
        self._left = probabilities

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        (count,) = map(len, windows)
        found, self._left = self._left[:count], self._left[count:]
        return [found], states


@pytest.mark.parametrize("size", [BLOCK, 1_000, WINDOW_SAMPLES, 100_000])
def test_blocks_of_any_size_are_cut_into_the_utterances_of_a_transcription(size: int) -> None:
    probabilities = talk(*[(0.9, 6), (0.0, 2), (0.9, 14), (0.0, 3)] * 4, (0.9, 1))
    sound = np.arange(len(probabilities) * WINDOW_SAMPLES - 100, dtype=np.float32)
    blocks = [sound[start : start + size] for start in range(0, len(sound), size)]
    found = list(
        cut_blocks(blocks, DetectorStream(KnownProbabilities(probabilities)), rules=SpeechRules(), longest=LIMIT)
    )
    fake = FakeRecording(probabilities)
    fake.transcribe()
    assert [one.audio.duration for one in found] == pytest.approx(fake.durations, abs=100 / SAMPLE_RATE)
    for one in found:
        assert isinstance(one.audio, Audio)
        assert np.array_equal(one.audio.samples, sound[one.span.start : one.span.end])


class ReadsAhead(FakeRecording):
    """A recording in shared memory, of ones; it is read further while utterances wait, as a device's queue does."""

    def __init__(self, probabilities: Probabilities) -> None:
        super().__init__(probabilities)
        self.shared = SharedAudio()
        self.utterances = Utterances(self.shared, rules=SpeechRules(), longest=LIMIT)
        self.silent = 0

    async def blocks(self) -> AsyncGenerator[Probabilities, None]:
        for part in np.array_split(self.given, 100):
            self.shared.append(np.ones(len(part) * WINDOW_SAMPLES, np.float32))
            self.most_stored = max(self.most_stored, self.shared.stored)
            yield part

    async def recognize(
        self, items: AsyncIterator[U], *, phrases: Phrases
    ) -> AsyncGenerator[tuple[U, Hypothesis], None]:
        waiting: list[U] = []
        async for item in items:
            waiting.append(item)
            if len(waiting) > 8:
                yield self.decode(waiting.pop(0))
        for item in waiting:
            yield self.decode(item)

    def decode(self, item: U) -> tuple[U, Hypothesis]:
        assert isinstance(item.audio, SharedClip)
        self.durations.append(item.audio.duration)
        self.silent += int((item.audio.load().samples == 0).sum())
        return item, Hypothesis(())


def test_the_audio_of_an_utterance_is_kept_until_it_is_decoded_and_tried_again_and_no_longer() -> None:
    """Shared memory was freed as soon as the next utterance was read: models heard silence in what waited."""
    fake = ReadsAhead(talk(*[(0.9, 6), (0.0, 2)] * 100))
    retries: list[bool] = []

    async def main() -> None:
        async for _ in fake.transcription(retries.append).words():
            raise AssertionError("it gives no words")

    asyncio.run(main())
    fake.shared.close()
    assert len(retries) == 100
    assert len(fake.durations) > 200  # each utterance, and its retries
    assert fake.silent == 0
    assert fake.most_stored < 200 * SAMPLE_RATE


def windows_needed(probabilities: Probabilities) -> list[int]:
    """For each utterance, the number of windows after which it is known, if they come one by one."""
    fed = 0

    def one_by_one() -> Iterator[Probabilities]:
        nonlocal fed
        for index in range(len(probabilities)):
            fed = index + 1
            yield probabilities[index : index + 1]

    return [fed for one in utterance_spans(one_by_one(), SpeechRules(), LIMIT * SAMPLE_RATE) if one and one.span.length]


@pytest.mark.parametrize("size", [BLOCK, 5 * SAMPLE_RATE])
def test_a_recording_is_read_no_further_than_the_next_utterance_needs(size: int) -> None:
    probabilities = talk(*[(0.9, 6), (0.0, 2), (0.9, 14), (0.0, 30)] * 5)
    total, read = len(probabilities) * WINDOW_SAMPLES, 0

    def blocks() -> Iterator[Samples]:
        nonlocal read
        for start in range(0, total, size):
            read = min(total, start + size)
            yield np.zeros(read - start, np.float32)

    detector = DetectorStream(KnownProbabilities(probabilities))
    reached = [read for _ in cut_blocks(blocks(), detector, rules=SpeechRules(), longest=LIMIT)]
    needed = [windows * WINDOW_SAMPLES for windows in windows_needed(probabilities)]
    assert reached == [min(total, -(-samples // size) * size) for samples in needed]
    assert reached[0] < total / 5


@pytest.mark.parametrize("named", ["de", None])
def test_sentences_end_as_in_the_language_that_is_named_or_else_as_in_that_of_the_text(named: str | None) -> None:
    said = "Am 3. Oktober ist Feiertag. Ja."  # in English "3." ends a sentence
    words = WordList(Word(text, 0.1 * number, 0.1 * number + 0.1, ()) for number, text in enumerate(said.split()))
    transcript = make_recording(
        words, np.zeros(100, np.float32), 3.2, language=named, detect_language={said: "de"}.get, lost=(), onset=0.5,
        is_truncated=False,
    ).transcript  # fmt: skip
    assert transcript.language == "de"
    assert [one.text for one in transcript.segments] == ["Am 3. Oktober ist Feiertag.", "Ja."]
