"""Downmix and resampling: audio of any rate and channel count → mono 16 kHz, with torchaudio's filters.

torchaudio makes a filter once for each rate (`engines/resampling_filters.py`), where torch is. Here it is applied, with
the same result, by media workers and fronts, which have no torch.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples

# torchaudio's filter has more than (rate / gcd) x (16000 / gcd) coefficients, and needs ten times their size while it
# is made: 0.28 million (1 MB) for 11,025 Hz, the largest of the rates in use; 128 million (5 GB) for 7999 Hz. With
# seven times as many, the filters for 60 odd rates kept a device process for 30 s.
MOST_COEFFICIENTS = 300_000
HIGHEST_RATE = 768_000  # Hz; nothing records faster, and the filter's length grows with the rate too
LOWEST_RATE = 4000  # Hz; nothing records speech slower, and at 1 Hz a file of 944 bytes has 15 minutes of audio
BLOCK_SECONDS = 10  # resampled at once: long enough to be fast, a few megabytes
ROWS = 256  # of one product: its windows, which overlap and are copied for it, stay in the processor's cache


@dataclass(frozen=True, slots=True, eq=False)
class Filter:
    """A resampling filter. Every `step` input samples give `outputs` samples at 16 kHz, and need `margin` more around.

    rate: in Hz. weights: shape (step + 2 x margin, outputs).
    """

    rate: int
    weights: npt.NDArray[np.float32]

    @property
    def step(self) -> int:
        """Input samples between two groups of outputs."""
        return int(self.weights.shape[1]) * self.rate // SAMPLE_RATE

    @property
    def margin(self) -> int:
        """Input samples needed on either side."""
        return (int(self.weights.shape[0]) - self.step) // 2


def is_convertible(rate: int) -> bool:
    """Whether a rate can be resampled: all that are in use can, but none that shares no large factor with 16000."""
    shared = math.gcd(rate, SAMPLE_RATE)
    return LOWEST_RATE <= rate <= HIGHEST_RATE and (rate // shared) * (SAMPLE_RATE // shared) <= MOST_COEFFICIENTS


def resample(samples: npt.NDArray[np.float32], made: Filter | None) -> Audio:
    """Mix all channels down by their mean and resample.

    samples: float32, shape (channels, num_samples), at the rate of the filter; None for 16 kHz. What is not a finite
    number becomes silence.
    """
    block = (made.rate if made else SAMPLE_RATE) * BLOCK_SECONDS
    pieces = (samples[:, start : start + block] for start in range(0, samples.shape[1], block))
    return Audio(np.concatenate(list(resample_pieces(map(mix_down, pieces), made))))


def resample_pieces(pieces: Iterable[Samples], made: Filter | None) -> Iterator[Samples]:
    """Resample mono audio in pieces of any length; the result does not depend on where it was cut.

    made: the filter of the pieces' rate; None for 16 kHz. Yields at least one array.
    """
    resampler = Resampler(made, BLOCK_SECONDS)
    for piece in pieces:
        block = resampler.push(piece)
        if len(block):
            yield block
    yield resampler.flush()


class Resampler:
    """Resamples one mono stream to 16 kHz piece by piece; the result does not depend on where the stream was cut."""

    def __init__(self, made: Filter | None, seconds: float = 0.0) -> None:
        """made: the filter of the stream's rate; None for 16 kHz. seconds: of audio to wait for: more is faster.

        With 0, only a piece's last few milliseconds wait for the next piece.
        """
        self._filter = made
        self._received = self._sent = 0
        if made is None:
            return
        self._waiting = [np.zeros(made.margin, np.float32)]
        self._waiting_samples = made.margin
        self._block_samples = 2 * made.margin + made.step + made.rate * seconds

    def push(self, samples: Samples) -> Samples:
        """The next samples at 16 kHz. samples: the next ones of the stream, shape (num_samples,)."""
        if self._filter is None:
            return samples
        self._waiting.append(samples)
        self._waiting_samples += len(samples)
        self._received += len(samples)
        if self._waiting_samples <= self._block_samples:
            return np.zeros(0, np.float32)
        wave = np.concatenate(self._waiting)
        block = _convolve(wave, self._filter)
        step = self._filter.step
        self._waiting = [wave[(self._waiting_samples - 2 * self._filter.margin) // step * step :]]
        self._waiting_samples = len(self._waiting[0])
        self._sent += len(block)
        return block

    def flush(self) -> Samples:
        """The last samples, at the end of the stream."""
        if self._filter is None:
            return np.zeros(0, np.float32)
        padding = np.zeros(self._filter.margin + self._filter.step, np.float32)
        wave = np.concatenate([*self._waiting, padding])
        whole = -(-self._received * SAMPLE_RATE // self._filter.rate)  # rounded up, as torchaudio does
        return _convolve(wave, self._filter)[: whole - self._sent]


def mix_down(samples: npt.NDArray[np.float32]) -> Samples:
    """The mean of all channels, in [-1, 1]. samples: shape (channels, num_samples)."""
    channels = len(samples)
    with np.errstate(over="ignore", invalid="ignore"):  # of numbers that were not finite, which become 0
        # The mean, as a product: 0.02 ms for a second of interleaved 48 kHz stereo, as FFmpeg gives it; `mean` takes 1.
        mono: Samples = samples[0] if channels == 1 else np.full(channels, 1 / channels, np.float32) @ samples
    if not np.isfinite(mono).all():
        mono = np.nan_to_num(mono, nan=0, posinf=0, neginf=0)
    return mono.clip(-1, 1)


def pick_channel(samples: npt.NDArray[np.float32], channel: int) -> Samples:
    """One channel, in [-1, 1]; silence where there is none of this number. samples: shape (channels, num_samples)."""
    if channel >= len(samples):
        return np.zeros(samples.shape[1], np.float32)
    return mix_down(samples[channel : channel + 1])


def _convolve(wave: Samples, made: Filter) -> Samples:
    width = made.weights.shape[0]
    windows = np.lib.stride_tricks.sliding_window_view(wave, width)[:: made.step]
    parts = [windows[first : first + ROWS] @ made.weights for first in range(0, len(windows), ROWS)]
    samples: Samples = np.concatenate(parts).reshape(-1)
    return np.clip(samples, -1, 1, out=samples)  # the filter overshoots at full scale
