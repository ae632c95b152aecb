"""What the service asks of an engine: a recognizer of speech, and a detector of speech.

An engine is a file in `engines/` that implements these protocols, and a line in its `loading.py`. Everything that goes
in or comes out is a value: it can cross to another process.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Audio, Clip
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.speakers import SpeakerProbabilities
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Hypothesis, Token
from parakeet_stt.vad import Probabilities, Windows

FRAME_SAMPLES = round(ENCODER_FRAME_SECONDS * SAMPLE_RATE)  # of one encoder frame; every engine has to have it
T = TypeVar("T")
Result = TypeVar("Result", covariant=True)
SpeakerVoices = npt.NDArray[np.float32]
DecoderState = object  # where the search of an utterance stands; only the engine reads it. Can be pickled


@dataclass(frozen=True, slots=True, eq=False)
class Chunk:
    """The next part of an utterance that somebody is still speaking, with the audio around it.

    audio: left context, the part itself, right context. left_context: samples of earlier chunks, a multiple of
    `FRAME_SAMPLES`. right_context: samples that later chunks will hold; 0 for the utterance's last chunk, and else such
    that the part itself, which may be empty, is a multiple of `FRAME_SAMPLES`. state: from the result of the chunk
    before; None for the first.
    """

    audio: Clip
    left_context: int
    right_context: int
    state: DecoderState | None


@dataclass(frozen=True, slots=True, eq=False)
class ChunkResult:
    """The tokens of a chunk. All times in seconds from the start of the chunk's audio.

    stable: tokens of the part itself; later chunks do not change them. unstable: tokens of the right context; later
    chunks may change them. state: for the next chunk.
    """

    stable: Sequence[Token]
    unstable: Sequence[Token]
    state: DecoderState | None


@dataclass(frozen=True, slots=True)
class SpeakerLayout:
    """How a diarizer takes a recording, in samples, and how many speakers it can tell apart.

    chunk: the part that each call is about; only a recording's last one may be shorter. left_context, right_context: of
    audio before and after it, except where the recording begins or ends. same_voice: cosine of two `voices` from which
    they are one person's; None if the network gives no voices.
    """

    speakers: int
    chunk: int
    left_context: int
    right_context: int
    same_voice: float | None = None


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerChunk:
    """The next part of a recording, with the audio around it.

    audio: left context, the part itself, right context. left_context, right_context: samples. state: from the result of
    the part before; None for the first.
    """

    audio: Clip
    left_context: int
    right_context: int
    state: object | None


@dataclass(frozen=True, slots=True, eq=False)
class SpeakerResult:
    """The probability that each speaker speaks, in each frame of 80 ms of the part. state: for the next part.

    voices: how each speaker sounds in the part, where only they speak, shape (speakers, width): only the direction
    counts; zeros if they hardly do. None if the network gives no voices.
    """

    probabilities: SpeakerProbabilities
    state: object | None
    voices: SpeakerVoices | None = None


class Priority(IntEnum):
    """What goes to the device first."""

    LIVE = 0  # somebody is speaking
    SHORT = 1  # the first minute of a recording
    LONG = 2  # the rest of a recording


class HasAudio(Protocol):
    """Whatever can be recognized."""

    @property
    def audio(self) -> Clip:
        """The audio to decode."""
        ...


class Pending(Protocol[Result]):
    """Work that is queued on a device."""

    def result(self) -> Result:
        """Wait for the device, and give the result; at once if it was given before.

        Raises as the call that queued it: an error may show only now. Only the thread that queued it may ask.
        """
        ...


@dataclass(frozen=True, slots=True)
class Done(Generic[T]):
    """Work that is done already; see `Pending`."""

    found: T

    def result(self) -> T:
        """The result."""
        return self.found


class Recognizer(Protocol):
    """Speech to tokens. Not thread-safe: the thread that loads it makes all calls but the reading of properties."""

    @property
    def device(self) -> str:
        """Where the network runs: cpu, cuda, cuda:1."""
        ...

    @property
    def precision(self) -> str:
        """The type of the weights: float32, bfloat16, float16, int8."""
        ...

    @property
    def precision_reason(self) -> str:
        """Why that type, for the operator."""
        ...

    @property
    def config(self) -> str:
        """The active configuration as YAML."""
        ...

    @property
    def vocabulary(self) -> Sequence[str]:
        """The piece of each token id. Tokens are given as `TokenArrays` with it."""
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

    def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Pending[list[Hypothesis]]:
        """Queue what `recognize` does, and return without waiting for the device. Arguments and errors as there.

        So the next batch can be prepared and queued while this one runs. The batch must not be changed before the
        result is collected. Results may be collected in any order. On a CPU the work is done before this returns.
        """
        ...

    def launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Pending[list[ChunkResult]]:
        """Queue what `decode_chunks` does; as `launch`. The next chunk of an utterance needs this one's result."""
        ...

    def capacity_seconds(self) -> float | None:
        """Padded seconds of audio that fit into the device's free memory; None if memory sets no limit."""
        ...

    def memory_bytes(self) -> float:
        """Memory in use on the device; 0 on a CPU. Any thread may ask."""
        ...


class Diarizer(Protocol):
    """Speech to speakers, numbered in the order in which they first speak. The recognizer's thread makes all calls."""

    @property
    def layout(self) -> SpeakerLayout:
        """How it takes a recording."""
        ...

    def warm_up(self) -> None:
        """Run once what the first batch would be slow at."""
        ...

    def diarize(self, batch: Sequence[SpeakerChunk]) -> list[SpeakerResult]:
        """Tell the speakers in one part of each of several recordings, independently, in input order.

        A number means the same person in all parts of a recording. Raises as `Recognizer.recognize`.
        """
        ...


DETECTOR_STATE_SHAPE = (2, 128)  # the detector's state of one stream: hidden, cell
DetectorStates = npt.NDArray[np.float32]  # shape (streams, *DETECTOR_STATE_SHAPE); zeros at the start of a stream


class SpeechDetector(Protocol):
    """Audio to speech probabilities, for many streams at once: recordings and live sessions. Keeps no state itself."""

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        """Probability of speech in each window of each of several streams, and the streams' next states.

        windows: for each stream its next windows, one after another, shape (count, 64 + 512), each with the end of the
        window before; counts may differ, and be 0. Returns one array of shape (count,) for each stream.
        """
        ...


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded recognizer; a detector where it is best on the recognizer's own device, None on a CPU; a diarizer, if

    the operator wants one.
    """

    recognizer: Recognizer
    detector: SpeechDetector | None
    diarizer: Diarizer | None = None
