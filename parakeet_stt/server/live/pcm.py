"""A live stream's bytes → mono 16 kHz samples: PCM and G.711, any rate that can be resampled."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.media import resampling
from parakeet_stt.media.resampling import Filter

Encoding = Literal["pcm_s16le", "pcm_f32le", "mulaw", "alaw"]
LOWEST_RATE, HIGHEST_RATE = 8_000, 48_000  # Hz
SAMPLE_BYTES: dict[Encoding, int] = {"pcm_s16le": 2, "pcm_f32le": 4, "mulaw": 1, "alaw": 1}


def is_rate(rate: int) -> bool:
    """Whether a live stream may have this rate, in Hz."""
    return LOWEST_RATE <= rate <= HIGHEST_RATE and (rate == SAMPLE_RATE or resampling.is_convertible(rate))


def _mulaw_table() -> npt.NDArray[np.float32]:
    """The 256 values of ITU-T G.711 μ-law, as samples in [-1, 1]."""
    code = ~np.arange(256) & 0xFF
    magnitude = (((code & 0x0F) << 3) + 0x84 << (code >> 4 & 7)) - 0x84
    return (np.where(code & 0x80, -magnitude, magnitude) / 32768).astype(np.float32)


def _alaw_table() -> npt.NDArray[np.float32]:
    """The 256 values of ITU-T G.711 A-law, as samples in [-1, 1]."""
    code = np.arange(256) ^ 0x55
    exponent = code >> 4 & 7
    mantissa = ((code & 0x0F) << 4) + 8
    magnitude = np.where(exponent == 0, mantissa, mantissa + 0x100 << np.maximum(exponent - 1, 0))
    return (np.where(code & 0x80, magnitude, -magnitude) / 32768).astype(np.float32)


_G711_TABLES = {"mulaw": _mulaw_table(), "alaw": _alaw_table()}


class PcmDecoder:
    """Decodes one stream; keeps the bytes that complete no sample yet, and the resampler's state."""

    def __init__(self, encoding: Encoding, made: Filter | None) -> None:
        """made: the resampling filter of the stream's rate; None for 16 kHz."""
        self._encoding = encoding
        self._resampler = resampling.Resampler(made)
        self._rest = b""

    def push(self, data: bytes, *, is_last: bool = False) -> Samples:
        """The next samples. data: the next bytes, of any length. is_last: no bytes follow."""
        if self._rest:
            data = self._rest + data
        rest = len(data) % SAMPLE_BYTES[self._encoding]
        self._rest = data[len(data) - rest :] if rest else b""
        samples = self._resampler.push(self._decode(data[: len(data) - rest] if rest else data))
        return np.concatenate([samples, self._resampler.flush()]) if is_last else samples

    def _decode(self, data: bytes) -> Samples:
        if self._encoding == "pcm_s16le":
            scaled: Samples = np.multiply(np.frombuffer(data, "<i2"), np.float32(1 / 32768), dtype=np.float32)
            return scaled
        if self._encoding == "pcm_f32le":
            return resampling.mix_down(np.frombuffer(data, "<f4").astype(np.float32)[None])
        samples: Samples = _G711_TABLES[self._encoding][np.frombuffer(data, np.uint8)]
        return samples
