"""Spectrograms of speech → vectors that are alike where the speaker is the same: a linear discriminant analysis.

Of each feature the mean and the deviation over frames in which one person speaks, in a space whose axes separate people
and not what they say. Source of the method: Fisher, "The use of multiple measurements in taxonomic problems" (1936), as
scikit-learn has it. Who trains a diarizer learns the space, which stands in its configuration as `voices`.
"""

from __future__ import annotations

import base64
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

LEAST_FRAMES = 6  # of 80 ms, of one person alone: half a second, from which a voice is known
Rows = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class VoiceSpace:
    """mean: of all people, shape (2 * mels,). axes: shape (2 * mels, width). same: cosine from which two are one."""

    mean: Rows
    axes: Rows
    same: float

    @classmethod
    def of(cls, given: Mapping[str, Any], mels: int) -> VoiceSpace:
        """From a configuration. mels: of the features. Raises KeyError, TypeError, ValueError if it is none."""
        mean, axes = (np.frombuffer(base64.b64decode(given[name]), np.float32) for name in ("mean", "axes"))
        return cls(mean.reshape(2 * mels), axes.reshape(2 * mels, -1), float(given["same"]))

    def to_config(self) -> dict[str, object]:
        """For a configuration: arrays are base64 of float32, since NeMo copies a text faster than 4,000 numbers."""
        arrays = {"mean": self.mean, "axes": self.axes}
        packed = {name: base64.b64encode(one.astype("<f4").tobytes()).decode() for name, one in arrays.items()}
        return {**packed, "same": self.same}

    @property
    def width(self) -> int:
        """Of a voice's vector."""
        return int(self.axes.shape[1])

    def place(self, features: Rows) -> Rows:
        """The vector of one person's speech. features: log-mel, shape (spectrogram's frames, mels)."""
        centered: Rows = describe(features) - self.mean
        return centered @ self.axes


def describe(features: Rows) -> Rows:
    """Mean and deviation of each feature over the frames, shape (2 * mels,)."""
    described: Rows = np.concatenate([features.mean(0), features.std(0)]).astype(np.float32)
    return described
