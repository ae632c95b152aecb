"""Knows what the service asks of a recognizer and of a speech detector. Does not know any model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Protocol

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Hypothesis, Token

FRAME_SAMPLES = round(ENCODER_FRAME_SECONDS * SAMPLE_RATE)
Memory = object  # what a recognizer keeps of an utterance from one step to the next; only it knows what is in it


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """The next part of an utterance that is still being spoken.

    audio: the part, and what is said around it. before: samples of it that earlier steps have had, a multiple of
    `FRAME_SAMPLES`. after: samples of it that belong to later steps; 0 if this is the utterance's last, and else such
    that the part itself, which may be empty, is a multiple of `FRAME_SAMPLES`. memory: what the step before has left;
    None in the first.
    """

    audio: Audio
    before: int
    after: int
    memory: Memory | None


@dataclass(frozen=True, slots=True, eq=False)
class Stepped:
    """What a step has found.

    part: the tokens of the step's own part, which later steps will not change. tail: those of what comes after it,
    which they may. All times in seconds from the start of the step's audio. memory: for the next step.
    """

    part: tuple[Token, ...]
    tail: tuple[Token, ...]
    memory: Memory


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


class LiveRecognizer(Recognizer, Protocol):
    """One that can also begin with an utterance before its end."""

    def step(self, batch: Sequence[Step], phrases: Sequence[Phrases] = ()) -> list[Stepped]:
        """Decode a part of each of several utterances, independently, in input order; else as `recognize`.

        A single step over a whole utterance finds what `recognize` finds.
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


WINDOW_CONTEXT = 64  # samples of the window before with which each is heard
MEMORY_SHAPE = (2, 128)  # of what the detector remembers of one live stream


class SpeechDetector(Protocol):
    """Audio to speech probabilities: of one recording, or of many live streams at once."""

    def stream(self) -> SpeechStream:
        """One that has heard nothing yet. Streams may be used by different threads at once."""
        ...

    def probabilities(
        self, windows: npt.NDArray[np.float32], memories: npt.NDArray[np.float32]
    ) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]:
        """The probability of speech in one window of each stream, and what is to be remembered of each.

        windows: shape (streams, 64 + 512), each with the end of the window before. memories: shape (streams, 2, 128),
        zeros at first. The detector itself remembers nothing of them.
        """
        ...
