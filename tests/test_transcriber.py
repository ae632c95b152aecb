"""The way of a recording, over a recognizer and a detector written by hand that see what they are asked."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, Iterable

import numpy as np
import pytest

from stt.audio import SAMPLE_RATE, Audio
from stt.errors import RecognitionError
from stt.recognizer import Priority
from stt.speech import WINDOW_SAMPLES, SpeechRules
from stt.transcriber import Probabilities, Recording, Transcriber
from stt.transcript import Hypothesis, Token

LIMIT = 10.0


class Heard:
    """Answers one word a call, 0.08 s after its utterance began."""

    def __init__(self, probabilities: Probabilities) -> None:
        self.probabilities = probabilities
        self.durations: list[float] = []
        self.priority: Priority | None = None
        self.fails_at = 0
        self.closed = False
        self.numbers = itertools.count()

    async def recognize(self, utterances: Iterable[Audio], *, priority: Priority) -> AsyncGenerator[Hypothesis, None]:
        self.priority = priority
        try:
            for audio in utterances:
                self.durations.append(audio.duration)
                await asyncio.sleep(0)
                if len(self.durations) == self.fails_at:
                    raise RecognitionError("no")
                number = next(self.numbers)
                yield Hypothesis((Token(number, f"▁w{number}.", 0.08, 0.4, -0.1),))
        finally:
            self.closed = True

    async def detect(self, audio: Audio) -> Probabilities:
        return self.probabilities

    def transcribe(self, *, cut: bool = True) -> Recording:
        transcriber = Transcriber(self.recognize, self.detect, LIMIT, SpeechRules())
        audio = Audio(np.zeros(len(self.probabilities) * WINDOW_SAMPLES, np.float32))
        return asyncio.run(transcriber.transcribe(audio, language="en", cut=cut))


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
    assert heard.priority == Priority.SHORT
    assert [word.start for word in transcript.words] == [pytest.approx(1.88, abs=0.05)]


def test_longer_audio_is_cut_at_pauses_with_exact_offsets() -> None:
    heard = Heard(talk(*[(0.9, 6), (0.0, 2)] * 10))
    transcript = heard.transcribe().transcript
    assert len(heard.durations) == 10
    assert max(heard.durations) <= LIMIT
    assert heard.priority == Priority.LONG
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
