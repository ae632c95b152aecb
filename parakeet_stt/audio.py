"""Audio inside the service: mono float32 samples at 16 kHz, and spans of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import numpy.typing as npt

from parakeet_stt.rolling_buffer import RollingBuffer

SAMPLE_RATE = 16_000  # Hz; what Parakeet and Silero were trained on
Samples = npt.NDArray[np.float32]
# Of the files of a folder, those that end so are recordings.
RECORDING_SUFFIXES = frozenset({
    ".aac", ".aif", ".aiff", ".au", ".flac", ".m4a", ".m4b", ".mka", ".mkv", ".mov", ".mp3", ".mp4", ".mpeg", ".mpga",
    ".oga", ".ogg", ".opus", ".w64", ".wav", ".webm",
})  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """`[start, end)` in samples."""

    start: int
    end: int

    def __post_init__(self) -> None:
        if not 0 <= self.start <= self.end:
            raise ValueError(f"a span needs 0 <= start <= end, not [{self.start}, {self.end})")

    @property
    def length(self) -> int:
        return self.end - self.start


class Clip(Protocol):
    """Audio of known length: samples in memory (`Audio`), or a place in shared memory."""

    @property
    def length(self) -> int:
        """Samples."""
        ...

    @property
    def duration(self) -> float:
        """Seconds."""
        ...

    def slice(self, span: Span) -> Clip:
        """The part inside `span`; a view, not a copy."""
        ...


@dataclass(frozen=True, slots=True, eq=False)
class Audio:
    """Mono 16 kHz audio.

    samples: float32, shape (num_samples,), in [-1, 1].
    """

    samples: Samples

    def __post_init__(self) -> None:
        if self.samples.ndim != 1 or self.samples.dtype != np.float32:
            raise ValueError(f"audio is float32 of one dimension, not {self.samples.dtype} {self.samples.shape}")

    @property
    def length(self) -> int:
        """Number of samples."""
        return len(self.samples)

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    def slice(self, span: Span) -> Audio:
        """The part of this audio inside `span`; a view, not a copy."""
        return Audio(self.samples[span.start : span.end])


class AudioStore(Protocol):
    """The audio of one stream, which grows at its end and is discarded at its beginning. Places are in samples."""

    @property
    def length(self) -> int:
        """Samples so far, discarded ones included."""
        ...

    @property
    def first(self) -> int:
        """Place of the first sample that is still there; the end of the stream if there is none."""
        ...

    def clip(self, start: int, end: int) -> Clip:
        """The samples of `[start, end)` that are still there."""
        ...

    def discard_before(self, end: int) -> None:
        """The samples before `end` are not needed any more; some of them may stay."""
        ...


class AudioBuffer(RollingBuffer):
    """An audio store in this process's memory."""

    def clip(self, start: int, end: int) -> Audio:
        """See `AudioStore`."""
        return Audio(self.slice(start, end))
