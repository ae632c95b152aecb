"""Knows how sound of any rate and channel count becomes mono 16 kHz, with torchaudio. Does not know files or codecs."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples

if TYPE_CHECKING:  # a second and a half, which the process that only starts the workers need not pay
    import torch

# The filter that torchaudio's resampling tutorial takes from librosa's "kaiser_best". Measured at 48 kHz: 0.0 dB at
# 7 kHz and -101 dB at 8.1 kHz; torchaudio's default has -1.8 dB and -7.3 dB there.
FILTER = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}
# A convolution with one output channel, as torchaudio does it for 48 kHz, uses little of the processor: 140 ms for a
# minute of sound on one core. With 32 output channels, each a shifted copy of the same filter, it is 12 ms.
OUTPUT_CHANNELS = 32
# torchaudio's filter has more than (rate / gcd) x (16000 / gcd) coefficients, and needs ten times their size while it
# is made: 0.28 million (1 MB) for 11,025 Hz, the largest of the rates in use; 128 million (5 GB) for 7999 Hz.
MOST_COEFFICIENTS = 1 << 21
HIGHEST_RATE = 768_000  # Hz; nothing records faster, and the filter's length grows with the rate too
BLOCK_SECONDS = 10  # resampled at once: long enough to be fast, a few megabytes


def is_convertible(rate: int) -> bool:
    """Whether `to_mono_16k` takes this rate: all in use, but not one that shares no large factor with 16000."""
    shared = math.gcd(rate, SAMPLE_RATE)
    return 0 < rate <= HIGHEST_RATE and (rate // shared) * (SAMPLE_RATE // shared) <= MOST_COEFFICIENTS


def to_mono_16k(samples: npt.NDArray[np.float32], rate: int) -> Audio:
    """Mix all channels down by their mean and resample.

    samples: float32, shape (channels, num_samples), at `rate` Hz. What is not a finite number becomes silence.
    Raises ValueError for a rate that is not convertible.
    """
    block = rate * BLOCK_SECONDS
    pieces = (samples[:, start : start + block] for start in range(0, samples.shape[1], block))
    return Audio(np.concatenate(list(pieces_to_mono_16k(pieces, rate))))


def pieces_to_mono_16k(pieces: Iterable[npt.NDArray[np.float32]], rate: int) -> Iterator[Samples]:
    """As `to_mono_16k`, for sound that comes in pieces; the result does not depend on where they were cut.

    pieces: float32, shape (channels, num_samples), each of any length and channel count, at `rate` Hz.
    Yields at least one array. Raises ValueError for a rate that is not convertible.
    """
    resampler = Resampler(rate, BLOCK_SECONDS)
    for piece in pieces:
        block = resampler.push(mixed_down(piece))
        if len(block):
            yield block
    yield resampler.rest()


class Resampler:
    """Mono sound of one rate that becomes 16 kHz piece by piece; the result does not depend on where it was cut."""

    def __init__(self, rate: int, seconds: float = 0.0) -> None:
        """seconds: of sound that are waited for, since it is faster to resample more at once.

        Without any, a piece's last few milliseconds come with the next one. Raises ValueError for a rate that is not
        convertible.
        """
        if not is_convertible(rate):
            raise ValueError(f"{rate} Hz can't be resampled directly")
        self._rate = rate
        self._received = self._sent = 0
        if rate == SAMPLE_RATE:
            return
        self._kernel, self._margin, self._step = _kernel(rate)
        self._waiting = [np.zeros(self._margin, np.float32)]
        self._held = self._margin
        self._least = 2 * self._margin + self._step + rate * seconds

    def push(self, samples: Samples) -> Samples:
        """What can be known of the result by now, without what was given before. samples: shape (num_samples,)."""
        if self._rate == SAMPLE_RATE:
            return samples
        self._waiting.append(samples)
        self._held += len(samples)
        self._received += len(samples)
        if self._held <= self._least:
            return np.zeros(0, np.float32)
        wave = np.concatenate(self._waiting)
        block = _convolved(wave, self._kernel, self._step)
        self._waiting = [wave[(self._held - 2 * self._margin) // self._step * self._step :]]
        self._held = len(self._waiting[0])
        self._sent += len(block)
        return block

    def rest(self) -> Samples:
        """What is left at the end."""
        if self._rate == SAMPLE_RATE:
            return np.zeros(0, np.float32)
        wave = np.concatenate([*self._waiting, np.zeros(self._margin + self._step, np.float32)])
        whole = -(-self._received * SAMPLE_RATE // self._rate)  # rounded up, as torchaudio does
        return _convolved(wave, self._kernel, self._step)[: whole - self._sent]


def mixed_down(samples: npt.NDArray[np.float32]) -> Samples:
    """The mean of all channels, in [-1, 1]. samples: shape (channels, num_samples)."""
    channels = len(samples)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that were not finite, which become 0
        # The mean, as a product: 0.02 ms for a second of interleaved 48 kHz stereo, as FFmpeg gives it; `mean` takes 1.
        mono: Samples = np.full(channels, 1 / channels, np.float32) @ samples
    np.nan_to_num(mono, copy=False, nan=0, posinf=0, neginf=0)
    return mono.clip(-1, 1)


def use_one_thread() -> None:
    """Resample with no thread besides the calling one; see `parakeet_stt.engines.devices.use_threads`."""
    from parakeet_stt.engines import devices

    devices.use_threads(1)


@lru_cache(maxsize=8)
def _kernel(rate: int) -> tuple[torch.Tensor, int, int]:
    """The filter, shape (outputs, 1, step + 2 x margin), then margin and step in samples at `rate`.

    Every `step` input samples give `outputs` samples at 16 kHz, and need `margin` more on either side.
    """
    import torch
    import torchaudio.transforms

    resample = torchaudio.transforms.Resample(rate, SAMPLE_RATE, **FILTER)
    shared = math.gcd(rate, SAMPLE_RATE)
    period, outputs = rate // shared, SAMPLE_RATE // shared
    copies = max(1, OUTPUT_CHANNELS // outputs)
    shifted = [torch.nn.functional.pad(resample.kernel, (period * i, period * (copies - 1 - i))) for i in range(copies)]
    return torch.cat(shifted), resample.width, period * copies


def _convolved(wave: Samples, kernel: torch.Tensor, step: int) -> Samples:
    import torch

    with torch.inference_mode():
        blocks = torch.nn.functional.conv1d(torch.from_numpy(wave)[None, None], kernel, stride=step)
        samples: Samples = blocks[0].T.reshape(-1).numpy()
        return np.clip(samples, -1, 1, out=samples)  # the filter overshoots at full scale
