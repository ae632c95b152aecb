"""Speech without words: where it is found, and that it is tried again."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TypeVar

import numpy as np
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio, Span
from parakeet_stt.offline.retry import find_missed, plan_attempts
from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.protocols import HasAudio
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token, Word
from parakeet_stt.vad import WINDOW_SAMPLES
from tests.offline.test_transcription import FakeRecording, talk

U = TypeVar("U", bound=HasAudio)


def utterance(*parts: tuple[float, float], start: int = 0) -> Utterance:
    """(probability, seconds) one after another; start: its first sample in the recording."""
    probabilities = talk(*parts)
    count = len(probabilities) * WINDOW_SAMPLES - start % WINDOW_SAMPLES
    return Utterance(Span(start, start + count), Audio(np.zeros(count, np.float32)), probabilities, 0.0)


def word(start: float, end: float) -> Word:
    return Word("word", start, end, ())


def seconds(span: Span) -> tuple[float, float]:
    return span.start / SAMPLE_RATE, span.end / SAMPLE_RATE


@pytest.mark.parametrize("start", [0, 1000])
def test_speech_in_an_utterance_without_words_is_missed(start: int) -> None:
    (span,) = find_missed(utterance((0.0, 0.5), (0.9, 0.4), (0.0, 0.5), start=start), [], 0.5)
    offset = start % WINDOW_SAMPLES / SAMPLE_RATE
    assert seconds(span) == pytest.approx((0.5 - offset, 0.9 - offset), abs=0.04)
    assert find_missed(utterance((0.0, 0.5), (0.9, 0.1), (0.0, 0.5)), [], 0.5) == []


def test_a_second_of_speech_beside_words_is_missed_and_less_is_theirs() -> None:
    spoken = utterance((0.9, 10))
    assert find_missed(spoken, [word(0, 3), word(3.5, 10)], 0.5) == []
    (gap,) = find_missed(spoken, [word(0, 3), word(6, 10)], 0.5)
    assert seconds(gap) == pytest.approx((3.2, 5.8), abs=0.07)
    (rest,) = find_missed(spoken, [word(0, 3)], 0.5)
    assert seconds(rest) == pytest.approx((3.2, 10), abs=0.07)
    paused = utterance((0.9, 3), (0.0, 4), (0.9, 3))
    assert find_missed(paused, [word(0, 3), word(7, 10)], 0.5) == []


def test_it_is_tried_without_the_silence_before_it_and_then_in_halves() -> None:
    parts = ((0.0, 2.0), (0.9, 2.0), (0.6, 0.1), (0.9, 2.0), (0.0, 1.0))
    (whole,), halves = plan_attempts(utterance(*parts), Span(2 * SAMPLE_RATE, 6 * SAMPLE_RATE + 1600))
    assert seconds(whole) == pytest.approx((1.8, 6.3), abs=0.07)
    assert halves[0].start == whole.start
    assert halves[0].end == halves[1].start
    assert halves[1].end == whole.end
    assert halves[0].end / SAMPLE_RATE == pytest.approx(4.05, abs=0.1)
    assert len(plan_attempts(utterance((0.9, 0.5)), Span(0, SAMPLE_RATE // 2))) == 1


class Deaf(FakeRecording):
    """Says nothing to audio that is longer than it can bear, else a word from its beginning to its end."""

    bears = 3.0

    async def recognize(
        self, items: AsyncIterator[U], *, phrases: Phrases
    ) -> AsyncGenerator[tuple[U, Hypothesis], None]:
        async for item in items:
            audio = item.audio
            self.durations.append(audio.duration)
            if audio.duration > self.bears:
                yield item, Hypothesis(())
            else:
                yield item, Hypothesis((Token(0, f"▁w{next(self.numbers)}", 0.0, audio.duration, -0.1),))


def heard_by(deaf: Deaf) -> tuple[list[tuple[float, float]], list[bool]]:
    retries: list[bool] = []

    async def main() -> list[tuple[float, float]]:
        words = deaf.transcription(retries.append).words()
        return [(word.start, word.end) async for found in words for word in found]

    return asyncio.run(main()), retries


def test_what_is_found_in_another_cut_is_there_at_its_time() -> None:
    found, retries = heard_by(Deaf(talk((0.0, 5), (0.9, 4), (0.0, 5), (0.9, 1), (0.0, 2))))
    assert retries == [True]
    assert [start for start, _ in found] == pytest.approx([4.8, 7.0, 13.8], abs=0.7)
    assert found == sorted(found)


def test_what_stays_without_words_is_counted_and_everything_else_goes_on() -> None:
    deaf = Deaf(talk((0.0, 5), (0.9, 9), (0.0, 5), (0.9, 1), (0.0, 2)))
    found, retries = heard_by(deaf)
    assert retries == [False]
    assert [start for start, _ in found] == pytest.approx([18.8], abs=0.1)
    assert len(deaf.durations) == 1 + 3 + 1
