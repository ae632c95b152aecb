"""Speech without words is found again or listed, whatever the recognizer loses."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Sequence
from dataclasses import dataclass, field
from typing import TypeVar

import numpy as np
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio, Span
from parakeet_stt.protocols import HasAudio
from parakeet_stt.text.coverage import MISSED_ALL_SECONDS, NEAR_SECONDS, Lost, measure_coverage
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Recording, SpeechCoverage, Token, Word, WordList
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities
from tests.offline.test_transcription import BLOCK, FakeRecording, talk

U = TypeVar("U", bound=HasAudio)
CASES = 500
WINDOW = WINDOW_SAMPLES / SAMPLE_RATE
# Of speech, at least, of what the recognizer loses: a second, and what is near the words on both sides; or a short word
# that is alone.
LOST_SECONDS, ALONE_SECONDS = 1.0 + 2 * NEAR_SECONDS + 2 * WINDOW, 0.3


@dataclass
class Run:
    """Words one after another that the recognizer loses. for_times: how often; then it finds them.

    It begins to lose them where it is given `shortest` seconds of them, or nothing else.
    """

    words: range
    for_times: float
    shortest: float
    has_begun: bool = False


@dataclass
class Conversation:
    """A recording whose words are known. spoken: start and end of each, in windows."""

    spoken: list[tuple[int, int]] = field(default_factory=list)
    lost: list[Run] = field(default_factory=list)
    length: int = 0

    @classmethod
    def random(cls, pick: random.Random) -> Conversation:
        """Sentences, their words with pauses between or without; of some, words get lost."""
        made = cls(length=pick.randint(0, 100))
        for _ in range(pick.randint(1, 3)):
            first = len(made.spoken)
            for _ in range(pick.choice([1, 3, 8, 16])):
                count = pick.randint(5, 20)
                made.spoken.append((made.length, made.length + count))
                made.length += count + pick.choice([0, 0, 0, 2, 8, 20])
            made.length += pick.randint(10, 150)
            words = len(made.spoken) - first
            begin = pick.randint(0, words - 1)
            lost = range(first + begin, first + pick.randint(begin + 1, words))
            shortest = ALONE_SECONDS if len(lost) == words else LOST_SECONDS
            if pick.random() < 0.8 and made.seconds(lost) >= shortest:
                made.lost.append(Run(lost, pick.choice([1, 2, 3, float("inf")]), shortest))
        return made

    def seconds(self, words: Iterable[int]) -> float:
        """Of speech in these words."""
        return sum(self.spoken[number][1] - self.spoken[number][0] for number in words) * WINDOW


class Losing(FakeRecording):
    """Says the words of a conversation whose middle it is given, but those that it loses."""

    def __init__(self, conversation: Conversation) -> None:
        probabilities = np.zeros(conversation.length, np.float32)
        for start, end in conversation.spoken:
            probabilities[start:end] = 0.9
        super().__init__(probabilities)
        self.conversation = conversation

    async def blocks(self) -> AsyncGenerator[Probabilities, None]:
        total = len(self.given) * WINDOW_SAMPLES
        for start in range(0, total, BLOCK):
            before, self.read = self.read, min(total, start + BLOCK)
            self.audio.append(np.arange(before, self.read, dtype=np.float32))  # each sample is its own place
            yield self.given[before // WINDOW_SAMPLES : self.read // WINDOW_SAMPLES]

    async def recognize(
        self, items: AsyncIterator[U], *, phrases: Phrases
    ) -> AsyncGenerator[tuple[U, Hypothesis], None]:
        async for item in items:
            assert isinstance(item.audio, Audio)
            first = int(item.audio.samples[0])
            inside = [
                number
                for number, (start, end) in enumerate(self.conversation.spoken)
                if first <= (start + end) / 2 * WINDOW_SAMPLES < first + item.audio.length
            ]
            for run in self.conversation.lost:
                given = set(run.words) & set(inside)
                run.has_begun |= self.conversation.seconds(given) >= run.shortest
                if given and run.has_begun and run.for_times > 0:
                    inside = [number for number in inside if number not in run.words]
                    run.for_times -= 1
            yield item, Hypothesis([self.token(number, first, item.audio.length) for number in inside])

    def token(self, number: int, first: int, length: int) -> Token:
        start, end = (place * WINDOW_SAMPLES - first for place in self.conversation.spoken[number])
        return Token(number, f"▁w{number}", max(start, 0) / SAMPLE_RATE, min(end, length) / SAMPLE_RATE, -0.1)


@pytest.fixture(scope="module")
def heard() -> list[tuple[Conversation, Recording]]:
    pick = random.Random(19)
    conversations = [Conversation.random(pick) for _ in range(CASES)]
    return asyncio.run(_hear(conversations))


async def _hear(conversations: Sequence[Conversation]) -> list[tuple[Conversation, Recording]]:
    heard = []
    for one in conversations:
        transcription = Losing(one).transcription()
        async for _ in transcription.words():
            pass
        heard.append((one, await transcription.recording()))
    return heard


def test_each_lost_span_is_found_again_or_listed(heard: list[tuple[Conversation, Recording]]) -> None:
    """But for a short word at the edge of what a retry has found: it may be the drawn-out end of its neighbour."""
    again = listed = 0
    for conversation, recording in heard:
        words = {word.text for word in recording.transcript.words}
        for run in conversation.lost:
            hidden = []
            for number in run.words:
                middle = sum(conversation.spoken[number]) / 2 * WINDOW
                is_listed = any(one.start <= middle <= one.end for one in recording.speech.uncovered)
                again, listed = again + (f"w{number}" in words), listed + is_listed
                if f"w{number}" not in words and not is_listed:
                    hidden.append(number)
            most = MISSED_ALL_SECONDS + 2 * NEAR_SECONDS if words & {f"w{number}" for number in run.words} else 0
            assert conversation.seconds(hidden) <= most, (run, conversation, recording.speech)
    assert again > 300
    assert listed > 300


def test_nothing_is_listed_where_words_are_and_no_word_is_there_twice(
    heard: list[tuple[Conversation, Recording]],
) -> None:
    for conversation, recording in heard:
        words = recording.transcript.words
        assert len({word.text for word in words}) == len(words)
        for one in recording.speech.uncovered:
            assert one.tries in (1, 2, 3)
            assert one.tries > 1 or one.end - one.start < 2
            assert not any(word.start < one.end - 1e-6 and word.end > one.start + 1e-6 for word in words)
        if not conversation.lost:
            assert not recording.speech.uncovered


def test_seconds_are_those_of_the_detector(heard: list[tuple[Conversation, Recording]]) -> None:
    for conversation, recording in heard:
        speech, is_speech = recording.speech, recording.probabilities >= 0.5
        assert speech.seconds == pytest.approx(sum(end - start for start, end in conversation.spoken) * WINDOW)
        lost = sum(is_speech[round(one.start / WINDOW) : round(one.end / WINDOW)].sum() for one in speech.uncovered)
        assert speech.uncovered_seconds == pytest.approx(lost * WINDOW)


def coverage(probabilities: Probabilities, *words: tuple[float, float], lost: Sequence[Lost] = ()) -> SpeechCoverage:
    return measure_coverage(probabilities, WordList(Word("w", *times, ()) for times in words), lost, 0.5)


def listed(
    probabilities: Probabilities, *words: tuple[float, float], lost: Sequence[Lost] = ()
) -> list[tuple[float, float]]:
    found = coverage(probabilities, *words, lost=lost).uncovered
    return [(round(one.start, 1), round(one.end, 1)) for one in found]


def test_a_second_of_speech_between_words_is_listed_and_less_is_theirs() -> None:
    spoken = talk((0.9, 10))
    assert listed(spoken, (0, 3), (4.3, 10)) == []
    assert listed(spoken, (0, 3), (4.6, 10)) == [(3.0, 4.6)]
    assert listed(spoken, (1.1, 10)) == []
    assert listed(spoken, (1.5, 8.5)) == [(0.0, 1.5), (8.5, 10.0)]


def test_speech_that_no_word_is_near_is_listed_if_it_is_as_long_as_a_word() -> None:
    spoken = talk((0.9, 2), (0.0, 0.4), (0.9, 0.4), (0.0, 0.4), (0.9, 2))
    assert listed(spoken, (0, 2), (3.2, 5.2)) == [(2.4, 2.8)]
    assert listed(spoken, (0, 2), (2.9, 5.2)) == []  # a word whose time is late
    assert listed(talk((0.9, 2), (0.0, 0.4), (0.9, 0.2), (0.0, 0.4), (0.9, 2)), (0, 2), (3, 5)) == []


def test_what_a_retry_has_left_is_listed_even_if_it_is_short() -> None:
    spoken, lost = talk((0.9, 10)), Lost(Span(3 * SAMPLE_RATE, 5 * SAMPLE_RATE), 3)
    assert listed(spoken, (0, 3), (3.8, 10), lost=[lost]) == [(3.0, 3.8)]
    (one,) = coverage(spoken, (0, 3), (3.8, 10), lost=[lost]).uncovered
    assert one.tries == 3
    assert listed(spoken, (0, 3), (3.1, 5), (5, 10), lost=[lost]) == []


def test_speech_is_not_added_up_over_a_long_silence() -> None:
    assert (
        listed(talk((0.9, 2), (0.0, 0.3), (0.9, 0.2), (0.0, 2), (0.9, 0.2), (0.0, 2), (0.9, 2)), (0, 2), (6.7, 8.7))
        == []
    )


def test_a_recording_without_speech_has_nothing_to_cover() -> None:
    assert asyncio.run(_speech_of(talk((0.01, 5)))) == SpeechCoverage()


async def _speech_of(probabilities: Probabilities) -> SpeechCoverage:
    transcription = FakeRecording(probabilities).transcription()
    assert [words async for words in transcription.words()] == []
    return (await transcription.recording()).speech
