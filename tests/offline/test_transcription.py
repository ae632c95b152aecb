"""The way of a recording, over a recognizer and a detector written by hand that see what they are asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples
from parakeet_stt.errors import RecognitionError
from parakeet_stt.offline.transcription import Recording, Transcription
from parakeet_stt.offline.utterances import Probabilities, Utterances
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES, SpeechRules
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token

T = TypeVar("T")
LIMIT = 10.0
BLOCK = SAMPLE_RATE  # of the blocks that a recording comes in


async def at_once(work: Callable[[], T]) -> T:
    return work()


class Heard:
    """A recording of which only the detector's probabilities are known. Answers one word an utterance, from 0.08 s on.

    read: the samples that have been read. most_held: and the most of them that could not be forgotten yet.
    """

    def __init__(self, probabilities: Probabilities) -> None:
        self.given = probabilities
        self.durations: list[float] = []
        self.fails_at = 0
        self.closed = False
        self.numbers = itertools.count()
        self.read = 0
        self.most_held = 0
        self.asked = 0
        self.utterances = Utterances(self.blocks(), self, rules=SpeechRules(), longest=LIMIT)

    def blocks(self) -> Iterator[Samples]:
        total = len(self.given) * WINDOW_SAMPLES
        for start in range(0, total, BLOCK):
            self.read = min(total, start + BLOCK)
            yield np.zeros(self.read - start, np.float32)
            self.most_held = max(self.most_held, sum(len(block) for _, block in self.utterances._samples._blocks))

    def probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        before, self.asked = self.asked, self.read // WINDOW_SAMPLES
        return self.given[before : self.asked]

    def rest(self) -> npt.NDArray[np.float32]:
        return self.given[self.asked :]

    async def recognize(
        self, utterances: AsyncIterator[Audio], *, phrases: Phrases, again: bool = False
    ) -> AsyncGenerator[Hypothesis, None]:
        try:
            async for audio in utterances:
                self.durations.append(audio.duration)
                if len(self.durations) == self.fails_at:
                    raise RecognitionError("no")
                number = next(self.numbers)
                yield Hypothesis((Token(number, f"▁w{number}.", 0.08, audio.duration, -0.1),))
        finally:
            self.closed = True

    def transcribe(self, *, cut: bool = True) -> Recording:
        if not cut:
            self.utterances = Utterances(self.blocks(), self, rules=SpeechRules(), longest=None)

        async def main() -> Recording:
            transcription = Transcription(self.utterances, recognize=self.recognize, in_thread=at_once, language="en")
            self.pieces = [" ".join(word.text for word in words) async for words in transcription.words()]
            return await transcription.recording()

        return asyncio.run(main())


def talk(*parts: tuple[float, float]) -> Probabilities:
    """(probability, seconds) one after another."""
    counts = [(p, round(seconds * SAMPLE_RATE / WINDOW_SAMPLES)) for p, seconds in parts]
    return np.concatenate([np.full(count, p, np.float32) for p, count in counts])


def test_silence_is_not_recognized_at_all() -> None:
    heard = Heard(talk((0.01, 60)))
    assert heard.transcribe().transcript.text == ""
    assert heard.durations == []


def test_what_fits_into_one_utterance_goes_at_once_without_the_silence_around_it() -> None:
    heard = Heard(talk((0.0, 2), (0.9, 1), (0.0, 1), (0.9, 2), (0.0, 3)))
    transcript = heard.transcribe().transcript
    assert heard.durations == [pytest.approx(4.4, abs=0.1)]
    assert [word.start for word in transcript.words] == [pytest.approx(1.88, abs=0.05)]


def test_longer_audio_is_cut_at_pauses_with_exact_offsets() -> None:
    heard = Heard(talk(*[(0.9, 6), (0.0, 2)] * 10))
    transcript = heard.transcribe().transcript
    assert len(heard.durations) == 10
    assert max(heard.durations) <= LIMIT
    assert transcript.text == " ".join(f"w{n}." for n in range(10))
    starts = [word.start for word in transcript.words]
    assert starts == [pytest.approx(max(8 * n - 0.2, 0) + 0.08, abs=0.05) for n in range(10)]


def test_cut_false_sends_everything_at_once() -> None:
    heard = Heard(talk(*[(0.9, 6), (0.0, 2)] * 3))
    heard.transcribe(cut=False)
    assert heard.durations == [pytest.approx(22.2, abs=0.1)]


def test_a_failing_utterance_fails_its_recording_and_the_rest_is_given_up() -> None:
    heard = Heard(talk(*[(0.9, 6), (0.0, 2)] * 5))
    heard.fails_at = 2
    with pytest.raises(RecognitionError):
        heard.transcribe()
    assert len(heard.durations) == 2
    assert heard.closed


def test_words_come_out_before_the_rest_is_read() -> None:
    heard = Heard(talk(*[(0.9, 6), (0.0, 2)] * 100))

    async def main() -> None:
        transcription = Transcription(heard.utterances, recognize=heard.recognize, in_thread=at_once, language="en")
        words = transcription.words()
        await anext(words)
        await words.aclose()

    asyncio.run(main())
    assert heard.read < 40 * SAMPLE_RATE
    assert heard.closed


def test_hours_are_held_no_longer_than_an_utterance_needs() -> None:
    heard = Heard(talk(*[(0.9, 6), (0.0, 2), (0.9, 25), (0.0, 600)] * 6))
    recording = heard.transcribe()
    assert recording.transcript.duration == pytest.approx(6 * 633, abs=0.1)
    assert len(recording.probabilities) == len(heard.given)
    assert heard.most_held <= 4 * LIMIT * SAMPLE_RATE  # an utterance, a pause, what may follow
    assert " ".join(heard.pieces) == recording.transcript.text
