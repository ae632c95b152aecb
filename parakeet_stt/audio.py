"""Audio inside the service: mono float32 samples at 16 kHz, and spans of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

SAMPLE_RATE = 16_000  # Hz; what Parakeet and Silero were trained on
Samples = npt.NDArray[np.float32]


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
    def duration(self) -> float:
        """Length in seconds."""
        return len(self.samples) / SAMPLE_RATE

    def slice(self, span: Span) -> Audio:
        """The part of this audio inside `span`; a view, not a copy."""
        return Audio(self.samples[span.start : span.end])
