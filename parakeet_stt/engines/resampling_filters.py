"""Makes resampling filters with torchaudio; `media/resampling.py` applies them."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import torch
import torchaudio.transforms

from parakeet_stt.audio import SAMPLE_RATE

# The filter that torchaudio's resampling tutorial takes from librosa's "kaiser_best". Measured at 48 kHz: 0.0 dB at
# 7 kHz and -101 dB at 8.1 kHz; torchaudio's default has -1.8 dB and -7.3 dB there.
FILTER = {
    "resampling_method": "sinc_interp_kaiser",
    "lowpass_filter_width": 64,
    "rolloff": 0.9475937167399596,
    "beta": 14.769656459379492,
}
# A product with one output sample, as torchaudio does it for 48 kHz, uses little of the processor: 140 ms for a minute
# of sound on one core. With 32 output samples, each a shifted copy of the same filter, it is 12 to 36 ms.
OUTPUTS = 32


def make_filter(rate: int) -> npt.NDArray[np.float32]:
    """The weights of `media.resampling.Filter` for a rate in Hz; takes up to half a second."""
    resample = torchaudio.transforms.Resample(rate, SAMPLE_RATE, **FILTER)
    shared = math.gcd(rate, SAMPLE_RATE)
    period, outputs = rate // shared, SAMPLE_RATE // shared
    copies = max(1, OUTPUTS // outputs)
    shifted = [torch.nn.functional.pad(resample.kernel, (period * i, period * (copies - 1 - i))) for i in range(copies)]
    weights: npt.NDArray[np.float32] = np.ascontiguousarray(torch.cat(shifted)[:, 0].numpy().T)
    return weights
