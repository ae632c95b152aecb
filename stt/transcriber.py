"""Knows the way of a recording: audio → speech spans → utterances → hypotheses → transcript. Does not know who asks.

The two calls that take time, detecting and recognizing, are handed in as coroutines, so this file knows no thread.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stt.alignment import segments_of, words_of
from stt.audio import SAMPLE_RATE, Audio, Span
from stt.speech import SpeechRules, speech_spans, utterances
from stt.transcript import Hypothesis, Transcript, Word

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class Recording:
    """What became of one recording: its text, and the speech probability of each window of 32 ms."""

    transcript: Transcript
    probabilities: Probabilities


@dataclass(frozen=True, slots=True)
class Transcriber:
    """The whole way, over a recognizer and a detector that somebody else runs.

    max_utterance: seconds; longer audio is cut at pauses.
    """

    recognize: Callable[[Audio], Awaitable[Hypothesis]]
    detect: Callable[[Audio], Awaitable[Probabilities]]
    max_utterance: float
    rules: SpeechRules
    language: str

    async def transcribe(self, audio: Audio, *, cut: bool = True) -> Recording:
        """Recognize all speech in `audio`, with every time counted from its start.

        What fits into one utterance goes to the recognizer whole, longer audio is cut at pauses, and audio without
        speech not at all: models invent words for silence. cut: False sends the audio whole, whatever its length.
        """
        probabilities = await self.detect(audio)
        spans = speech_spans(probabilities, len(audio.samples), self.rules)
        if spans and cut and audio.duration > self.max_utterance:
            spans = utterances(spans, probabilities, int(self.max_utterance * SAMPLE_RATE))
        elif spans:
            spans = (Span(0, len(audio.samples)),)
        hypotheses = await gather_or_cancel([self.recognize(audio.cut(span)) for span in spans])
        words: list[Word] = []
        for span, hypothesis in zip(spans, hypotheses, strict=True):
            offset = span.start / SAMPLE_RATE
            words += [w.shifted(offset) for w in words_of(hypothesis.tokens, span.length / SAMPLE_RATE)]
        transcript = Transcript(tuple(words), segments_of(words), audio.duration, self.language)
        return Recording(transcript, probabilities)


async def gather_or_cancel(calls: list[Awaitable[Hypothesis]]) -> list[Hypothesis]:
    """All results in order; when one fails or the caller leaves, the others are cancelled too."""
    tasks = [asyncio.ensure_future(call) for call in calls]
    try:
        return list(await asyncio.gather(*tasks))
    except BaseException:
        for task in tasks:
            task.cancel()
        raise
