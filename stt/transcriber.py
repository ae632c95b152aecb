"""Knows the way of a recording: audio → speech spans → utterances → hypotheses → transcript. Does not know who asks.

The two calls that take time, detecting and recognizing, are handed in as coroutines. What is computed here runs in a
thread for long recordings, since for hours of words it takes long enough to stall an event loop; for short ones the
thread would cost more than the work.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import ParamSpec, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from stt.alignment import segments_of, words_of
from stt.audio import SAMPLE_RATE, Audio, Span
from stt.recognizer import Priority
from stt.speech import SpeechRules, speech_spans, utterances
from stt.transcript import Hypothesis, Transcript, Word

P = ParamSpec("P")
T = TypeVar("T")
SHORT_SECONDS = 60
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of one recording: its text, and the speech probability of each window of 32 ms."""

    transcript: Transcript
    probabilities: Probabilities


class Recognize(Protocol):
    """Utterances to their hypotheses, in order; closing the generator gives up those that are left."""

    def __call__(self, utterances: Iterable[Audio], *, priority: Priority) -> AsyncGenerator[Hypothesis, None]: ...


@dataclass(frozen=True, slots=True)
class Transcriber:
    """The whole way, over a recognizer and a detector that somebody else runs.

    max_utterance: seconds; longer audio is cut at pauses.
    """

    recognize: Recognize
    detect: Callable[[Audio], Awaitable[Probabilities]]
    max_utterance: float
    rules: SpeechRules

    async def transcribe(self, audio: Audio, *, language: str, cut: bool = True) -> Recording:
        """Recognize all speech in `audio`, with every time counted from its start.

        The recognizer hears speech only, with a little silence around it: models invent words for silence, and some say
        nothing at all after too much of it. language: as the transcript shall name it. cut: False recognizes all from
        the first to the last speech at once, whatever its length.
        """
        probabilities = await self.detect(audio)
        in_its_place = _at_once if audio.duration <= SHORT_SECONDS else asyncio.to_thread
        speech = await in_its_place(speech_spans, probabilities, len(audio.samples), self.rules)
        longest = int(self.max_utterance * SAMPLE_RATE)
        spans = utterances(speech, probabilities, longest if cut else len(audio.samples))
        priority = Priority.SHORT if sum(span.length for span in spans) <= longest else Priority.LONG
        async with aclosing(self.recognize([audio.cut(span) for span in spans], priority=priority)) as recognized:
            hypotheses = [hypothesis async for hypothesis in recognized]
        return await in_its_place(_recording, spans, hypotheses, probabilities, audio.duration, language)


async def _at_once(work: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """Like `asyncio.to_thread`, without the thread."""
    return work(*args, **kwargs)


def _recording(
    spans: Sequence[Span],
    hypotheses: Sequence[Hypothesis],
    probabilities: Probabilities,
    duration: float,
    language: str,
) -> Recording:
    words: list[Word] = []
    for span, hypothesis in zip(spans, hypotheses, strict=True):
        offset = span.start / SAMPLE_RATE
        words += [word.shifted(offset) for word in words_of(hypothesis.tokens, span.length / SAMPLE_RATE)]
    return Recording(Transcript(tuple(words), segments_of(words), duration, language), probabilities)
