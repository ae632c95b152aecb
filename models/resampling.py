"""Knows how sound of any rate and channel count becomes mono 16 kHz, with torchaudio. Does not know files."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torchaudio.functional

from stt.audio import SAMPLE_RATE, Audio

# Half-width of the sinc in zero crossings. torchaudio's default of 6 lets 6 dB through at the new Nyquist frequency;
# 16 costs 2 ms more for a minute of 44.1 kHz audio.
FILTER_WIDTH = 16
# torchaudio's kernel has 16000 x rate / gcd(rate, 16000)^2 coefficients: 1 MB for 44,100 Hz, 0.5 GB for a prime rate.
MOST_COEFFICIENTS = 1 << 24


def is_convertible(rate: int) -> bool:
    """Whether `to_mono_16k` takes this rate: every rate in use, but not one that shares no factor with 16000."""
    return SAMPLE_RATE * rate // math.gcd(rate, SAMPLE_RATE) ** 2 <= MOST_COEFFICIENTS


def to_mono_16k(samples: npt.NDArray[np.float32], rate: int) -> Audio:
    """Mix all channels down by their mean and resample.

    samples: float32, shape (channels, num_samples), at `rate` Hz. What is not a number becomes silence.
    Raises ValueError for a rate that is not convertible.
    """
    if not is_convertible(rate):
        raise ValueError(f"{rate} Hz needs a resampling kernel of gigabytes")
    wave = torch.nan_to_num(torch.from_numpy(samples), nan=0.0, posinf=1.0, neginf=-1.0).mean(0)
    if rate != SAMPLE_RATE:
        wave = torchaudio.functional.resample(wave, rate, SAMPLE_RATE, lowpass_filter_width=FILTER_WIDTH)
    return Audio(wave.clamp(-1, 1).contiguous().numpy())
