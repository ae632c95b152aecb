"""Downmix and resampling: audio of any rate and channel count → mono 16 kHz, with torchaudio."""

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
    """Whether a rate can be resampled: all that are in use can, but none that shares no large factor with 16000."""
    shared = math.gcd(rate, SAMPLE_RATE)
    return 0 < rate <= HIGHEST_RATE and (rate // shared) * (SAMPLE_RATE // shared) <= MOST_COEFFICIENTS


def resample(samples: npt.NDArray[np.float32], rate: int) -> Audio:
    """Mix all channels down by their mean and resample.

    samples: float32, shape (channels, num_samples), at `rate` Hz. What is not a finite number becomes silence.
    Raises ValueError for a rate that is not convertible.
    """
    block = rate * BLOCK_SECONDS
    pieces = (samples[:, start : start + block] for start in range(0, samples.shape[1], block))
    return Audio(np.concatenate(list(resample_pieces(pieces, rate))))


def resample_pieces(pieces: Iterable[npt.NDArray[np.float32]], rate: int) -> Iterator[Samples]:
    """As `resample`, for audio in pieces; the result does not depend on where it was cut.

    pieces: float32, shape (channels, num_samples), each of any length and channel count, at `rate` Hz.
    Yields at least one array. Raises ValueError for a rate that is not convertible.
    """
    resampler = Resampler(rate, BLOCK_SECONDS)
    for piece in pieces:
        block = resampler.push(mix_down(piece))
        if len(block):
            yield block
    yield resampler.flush()


class Resampler:
    """Resamples one mono stream to 16 kHz piece by piece; the result does not depend on where the stream was cut."""

    def __init__(self, rate: int, seconds: float = 0.0) -> None:
        """seconds: of audio to wait for, since resampling more at once is faster.

        With 0, only a piece's last few milliseconds wait for the next piece. Builds the filter, which takes up to half
        a second. Raises ValueError for a rate that is not convertible.
        """
        if not is_convertible(rate):
            raise ValueError(f"{rate} Hz can't be resampled directly")
        self._rate = rate
        self._received = self._sent = 0
        if rate == SAMPLE_RATE:
            return
        self._kernel, self._margin, self._step = _kernel(rate)
        self._waiting = [np.zeros(self._margin, np.float32)]
        self._waiting_samples = self._margin
        self._block_samples = 2 * self._margin + self._step + rate * seconds

    def push(self, samples: Samples) -> Samples:
        """The next samples at 16 kHz. samples: the next ones of the stream, shape (num_samples,)."""
        if self._rate == SAMPLE_RATE:
            return samples
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        self._received += len(samples)
        if self._waiting_samples <= self._block_samples:
            return np.zeros(0, np.float32)
        wave = np.concatenate(self._waiting)
        block = _convolve(wave, self._kernel, self._step)
        self._waiting = [wave[(self._waiting_samples - 2 * self._margin) // self._step * self._step :]]
        self._waiting_samples = len(self._waiting[0])
        self._sent += len(block)
        return block

    def flush(self) -> Samples:
        """The last samples, at the end of the stream."""
        if self._rate == SAMPLE_RATE:
            return np.zeros(0, np.float32)
        wave = np.concatenate([*self._waiting, np.zeros(self._margin + self._step, np.float32)])
        whole = -(-self._received * SAMPLE_RATE // self._rate)  # rounded up, as torchaudio does
        return _convolve(wave, self._kernel, self._step)[: whole - self._sent]


def mix_down(samples: npt.NDArray[np.float32]) -> Samples:
    """The mean of all channels, in [-1, 1]. samples: shape (channels, num_samples)."""
    channels = len(samples)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that were not finite, which become 0
        # The mean, as a product: 0.02 ms for a second of interleaved 48 kHz stereo, as FFmpeg gives it; `mean` takes 1.
        mono: Samples = np.full(channels, 1 / channels, np.float32) @ samples
    np.nan_to_num(mono, copy=False, nan=0, posinf=0, neginf=0)
    return mono.clip(-1, 1)


def use_one_thread() -> None:
    """Resample in the calling thread alone: torch's teams of threads would compete with the recognizer's."""
    import torch

    torch.set_num_threads(1)
    torch.get_num_threads()  # from here on the number is this thread's own, whatever other threads set


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


def _convolve(wave: Samples, kernel: torch.Tensor, step: int) -> Samples:
    import torch

    with torch.inference_mode():
        blocks = torch.nn.functional.conv1d(torch.from_numpy(wave)[None, None], kernel, stride=step)
        samples: Samples = blocks[0].T.reshape(-1).numpy()
        return np.clip(samples, -1, 1, out=samples)  # the filter overshoots at full scale
