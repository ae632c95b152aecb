"""What the service asks of an engine: a recognizer of speech, and a detector of speech.

An engine is a file in `engines/` that implements these protocols, and a line in its `loading.py`. Everything that goes
in or comes out is a value: it can cross to another process.
"""

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
from parakeet_stt.vad import Probabilities, Windows

FRAME_SAMPLES = round(ENCODER_FRAME_SECONDS * SAMPLE_RATE)  # of one encoder frame; every engine has to have it
DecoderState = object  # where the search of an utterance stands; only the engine reads it. Can be pickled


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The next part of an utterance that somebody is still speaking, with the audio around it.

    audio: left context, the part itself, right context. left_context: samples of earlier chunks, a multiple of
    `FRAME_SAMPLES`. right_context: samples that later chunks will hold; 0 for the utterance's last chunk, and else such
    that the part itself, which may be empty, is a multiple of `FRAME_SAMPLES`. state: from the result of the chunk
    before; None for the first.
    """

    audio: Audio
    left_context: int
    right_context: int
    state: DecoderState | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """The tokens of a chunk. All times in seconds from the start of the chunk's audio.

    stable: tokens of the part itself; later chunks do not change them. unstable: tokens of the right context; later
    chunks may change them. state: for the next chunk.
    """

    stable: tuple[Token, ...]
    unstable: tuple[Token, ...]
    state: DecoderState | None


class Priority(IntEnum):
    """What goes to the device first."""

    LIVE = 0  # somebody is speaking
    SHORT = 1  # the first minute of a recording
    LONG = 2  # the rest of a recording


class HasAudio(Protocol):
    """Whatever can be recognized."""

    @property
    def audio(self) -> Audio:
        """The audio to decode."""
        ...


class Recognizer(Protocol):
    """Speech to tokens. Not thread-safe: the thread that loads it makes all calls but the reading of properties."""

    @property
    def device(self) -> str:
        """Where the network runs: cpu, cuda, cuda:1."""
        ...

    @property
    def precision(self) -> str:
        """The type of the weights: float32, bfloat16, float16."""
        ...

    @property
    def config(self) -> str:
        """The active configuration as YAML."""
        ...

    @property
    def frame_samples(self) -> int:
        """Samples of one encoder frame, the grid of chunks and of token times: `FRAME_SAMPLES`."""
        ...

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """Run once what the first batch would be slow at.

        max_items: utterances of the largest batch. max_seconds: length of the longest utterance.
        """
        ...

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Decode each utterance independently, in input order.

        batch: mono 16 kHz utterances; lengths may differ. phrases: to prefer in each utterance, without effect on the
        others; empty for none in any.
        Returns one hypothesis per utterance; times in seconds from that utterance's start, in steps of 0.08 s.
        Raises RecognitionError if the model fails: OutOfMemory if the batch does not fit into the device's memory,
        DeviceLost if the device can't be used any more.
        """
        ...

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        """Decode one chunk of each of several utterances, independently, in input order. Raises as `recognize`.

        A single chunk over a whole utterance gives the tokens that `recognize` gives.
        """
        ...

    def capacity_seconds(self) -> float | None:
        """Padded seconds of audio that fit into the device's free memory; None if memory sets no limit."""
        ...

    def memory_bytes(self) -> float:
        """Memory in use on the device; 0 on a CPU. Any thread may ask."""
        ...


class SpeechStream(Protocol):
    """Speech detection in one stream. One thread at a time calls it."""

    def push(self, samples: Samples) -> Probabilities:
        """Probability of speech in each window of 512 samples (32 ms) that these samples complete.

        samples: the next ones of the stream, float32, shape (num_samples,), of any length.
        """
        ...

    def flush(self) -> Probabilities:
        """Probability for the last window, filled up with zeros; empty if no sample is left."""
        ...


DETECTOR_STATE_SHAPE = (2, 128)  # the detector's state of one live stream


class SpeechDetector(Protocol):
    """Audio to speech probabilities: of one recording, or of many live streams at once. Thread-safe."""

    def stream(self) -> SpeechStream:
        """A new stream. Different threads may use different streams at once."""
        ...

    def detect(
        self, windows: Windows, states: npt.NDArray[np.float32]
    ) -> tuple[Probabilities, npt.NDArray[np.float32]]:
        """Probability of speech in one window of each of several streams, and the streams' next states.

        windows: shape (streams, 64 + 512), each with the end of the window before. states: shape (streams, 2, 128),
        zeros at first. The detector itself keeps no state.
        """
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded recognizer and a loaded detector."""

    recognizer: Recognizer
    detector: SpeechDetector
