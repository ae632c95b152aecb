"""Knows the way of a recording: audio → speech spans → utterances → hypotheses → transcript. Does not know who asks.

The two calls that take time, detecting and recognizing, are handed in as coroutines; what is computed here runs in a
thread of its own, since for hours of words it takes long enough to stall an event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

import numpy as np
import numpy.typing as npt

from stt.alignment import segments_of, words_of
from stt.audio import SAMPLE_RATE, Audio, Span
from stt.speech import SpeechRules, speech_spans, utterances
from stt.transcript import Hypothesis, Transcript, Word

T = TypeVar("T")
Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of one recording: its text, and the speech probability of each window of 32 ms."""

    transcript: Transcript
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Transcriber:
    """The whole way, over a recognizer and a detector that somebody else runs.

    max_utterance: seconds; longer audio is cut at pauses. max_in_flight: utterances of one recording that wait for the
    recognizer at once, so that a long recording leaves room for others.
    """

    recognize: Callable[[Audio], Awaitable[Hypothesis]]
    detect: Callable[[Audio], Awaitable[Probabilities]]
    max_utterance: float
    max_in_flight: int
    rules: SpeechRules

    async def transcribe(self, audio: Audio, *, language: str, cut: bool = True) -> Recording:
        """Recognize all speech in `audio`, with every time counted from its start.

        The recognizer hears speech only, with a little silence around it: models invent words for silence, and some say
        nothing at all after too much of it. language: as the transcript shall name it. cut: False recognizes all from
        the first to the last speech at once, whatever its length.
        """
        probabilities = await self.detect(audio)
        speech = await asyncio.to_thread(speech_spans, probabilities, len(audio.samples), self.rules)
        longest = int(self.max_utterance * SAMPLE_RATE) if cut else len(audio.samples)
        spans = utterances(speech, probabilities, longest)
        free = asyncio.Semaphore(self.max_in_flight)

        async def recognized(span: Span) -> Hypothesis:
            async with free:
                return await self.recognize(audio.cut(span))

        hypotheses = await gather_or_cancel([recognized(span) for span in spans])
        return await asyncio.to_thread(_recording, spans, hypotheses, probabilities, audio.duration, language)


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


async def gather_or_cancel(calls: Sequence[Awaitable[T]]) -> list[T]:
    """All results in order; when one fails or the caller leaves, the others are cancelled too."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
