"""The way of a recording, over a recognizer and a detector written by hand that see what they are asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.errors import RecognitionError
from parakeet_stt.offline.transcription import Transcription
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import HasAudio
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Recording, Token
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities

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

    def __init__(self, probabilities: Probabilities) -> None:
        self.given = probabilities
        self.durations: list[float] = []
        self.fails_at = 0
        self.closed = False
        self.numbers = itertools.count()
        self.read = 0
        self.most_stored = 0
        self.asked = 0
        self.utterances = Utterances(self.blocks(), self, rules=SpeechRules(), longest=LIMIT)

    def blocks(self) -> Iterator[Samples]:
        total = len(self.given) * WINDOW_SAMPLES
        for start in range(0, total, BLOCK):
            self.read = min(total, start + BLOCK)
            yield np.zeros(self.read - start, np.float32)
            self.most_stored = max(self.most_stored, self.utterances._samples.stored)

    def push(self, samples: Samples) -> npt.NDArray[np.float32]:
        before, self.asked = self.asked, self.read // WINDOW_SAMPLES
        return self.given[before : self.asked]

    def flush(self) -> npt.NDArray[np.float32]:
        return self.given[self.asked :]

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

    def transcribe(self, *, cut: bool = True) -> Recording:
        if not cut:
            self.utterances = Utterances(self.blocks(), self, rules=SpeechRules(), longest=None)

        async def main() -> Recording:
            transcription = Transcription(
                self.utterances, recognize=self.recognize, run_in_thread=at_once, language="en"
            )
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
    fake = FakeRecording(talk(*[(0.9, 6), (0.0, 2)] * 3))
    fake.transcribe(cut=False)
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
        transcription = Transcription(fake.utterances, recognize=fake.recognize, run_in_thread=at_once, language="en")
        words = transcription.words()
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
