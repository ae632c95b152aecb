"""Knows what the service asks of a recognizer and of a speech detector. Does not know any model."""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from stt.audio import Audio, Samples
from stt.phrases import Phrases
from stt.transcript import Hypothesis


class Priority(IntEnum):
    """What goes to the device first."""

    LIVE = 0  # somebody is speaking
    SHORT = 1  # the first minute of a recording
    LONG = 2  # what follows it


class Recognizer(Protocol):
    """Speech to tokens; not thread-safe: one thread calls it."""

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Decode each utterance independently, in input order.

        batch: mono 16 kHz utterances; their lengths may differ. phrases: what to listen for in each of them, which
        makes no difference to the others; left out, nothing in any.
        Returns one hypothesis per utterance; times in seconds from that utterance's start, in steps of 0.08 s.
        Raises RecognitionError if the model fails: OutOfMemory if the batch is more than the device holds, DeviceLost
        if nothing will work any more.
        """
        ...


class SpeechStream(Protocol):
    """What a detector knows of one stream of sound; one thread at a time calls it."""

    def probabilities(self, samples: Samples) -> npt.NDArray[np.float32]:
        """The probability of speech in each window of 512 samples (32 ms) that these samples complete.

        samples: what follows those of the last call, float32, shape (num_samples,), of any length.
        """
        ...

    def rest(self) -> npt.NDArray[np.float32]:
        """The probability for what is left at the end, as a window filled up with zeros; empty if nothing is."""
        ...


class SpeechDetector(Protocol):
    """Audio to speech probabilities."""

    def stream(self) -> SpeechStream:
        """One that has heard nothing yet. Streams may be used by different threads at once."""
        ...
