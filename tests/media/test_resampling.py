"""Sound of any rate and channel count becomes mono 16 kHz: the tone stays, the time stays, nothing folds back."""

from __future__ import annotations

import math
from collections.abc import Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import pytest
import soxr
import torch
import torchaudio.transforms

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples
from parakeet_stt.engines.resampling_filters import FILTER, make_filter
from parakeet_stt.media import resampling
from parakeet_stt.media.resampling import Filter, Resampler, is_convertible, mix_down

# Telephony, speech coders, CD and its fractions, video, studio; CD-XA; the highest that recorders have.
RATES_IN_USE = (
    *(8000, 16_000, 11_025, 12_000, 22_050, 24_000, 32_000, 37_800, 44_100, 47_250, 48_000, 50_000),
    *(64_000, 88_200, 96_000, 176_400, 192_000, 352_800, 384_000, 768_000),
)
ODD_RATES = (7999, 15_991, 22_255, 44_056, 47_952, 48_001, 96_001)


@lru_cache
def filter_of(rate: int) -> Filter | None:
    return None if rate == SAMPLE_RATE else Filter(rate, make_filter(rate))


def resample(samples: npt.NDArray[np.float32], rate: int) -> Audio:
    return resampling.resample(samples, filter_of(rate))


def resample_pieces(pieces: Iterable[Samples], rate: int) -> Samples:
    return np.concatenate(list(resampling.resample_pieces(pieces, filter_of(rate))))


def tone(hz: float, rate: int, seconds: float, level: float = 0.5) -> Samples:
    """float32, shape (num_samples,)."""
    wave = level * np.sin(2 * np.pi * hz * np.arange(round(seconds * rate)) / rate)
    return wave.astype(np.float32)


def noise(*shape: int) -> Samples:
    return np.random.default_rng(0).uniform(-0.5, 0.5, shape).astype(np.float32)


def loudness(samples: Samples) -> float:
    """Level of a tone in dB of full scale, without the edges."""
    inner = samples[1600:-1600].astype(np.float64)
    return 20 * math.log10(math.sqrt(2 * np.mean(inner**2)) + 1e-9)


@pytest.mark.parametrize("rate", RATES_IN_USE)
def test_a_tone_keeps_its_shape_and_place_at_every_rate_in_use(rate: int) -> None:
    audio = resample(tone(440, rate, 1)[None], rate)
    expected = tone(440, SAMPLE_RATE, 1)
    assert len(audio.samples) == len(expected)
    assert np.abs(audio.samples - expected)[800:-800].max() < 1e-4


@pytest.mark.parametrize("rate", sorted({*RATES_IN_USE} - {SAMPLE_RATE}))
def test_the_filter_of_every_rate_in_use_stays_small(rate: int) -> None:
    made = filter_of(rate)
    assert made is not None
    assert made.weights.nbytes <= 4 << 20
    assert made.weights.dtype == np.float32


@pytest.mark.parametrize("rate", [8000, 11_025, 44_100, 48_000, 96_000])
def test_the_samples_are_those_of_torchaudio_wherever_the_sound_was_cut(rate: int) -> None:
    wave = noise(rate * 25 + 17)
    whole = torchaudio.transforms.Resample(rate, SAMPLE_RATE, **FILTER)(torch.from_numpy(wave)).numpy()
    cuts = np.random.default_rng(1).integers(0, len(wave), 40)
    joined = resample_pieces(np.split(wave, np.sort(cuts)), rate)
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() < 1e-6
    at_once = resample(wave[None], rate).samples
    assert len(at_once) == len(whole)
    assert np.abs(at_once - whole).max() < 1e-6


@pytest.mark.parametrize("seconds", [0.0, 1.0])
@pytest.mark.parametrize("rate", [8000, 44_100, 48_000])
def test_a_stream_that_waits_for_little_audio_gets_the_same_samples_in_time(rate: int, seconds: float) -> None:
    wave = noise(rate * 3)
    whole = torchaudio.transforms.Resample(rate, SAMPLE_RATE, **FILTER)(torch.from_numpy(wave)).numpy()
    resampler = Resampler(filter_of(rate), seconds)
    found: list[Samples] = []
    for start in range(0, len(wave), rate // 50):
        found.append(resampler.push(wave[start : start + rate // 50]))
        pushed = start / rate
        assert sum(map(len, found)) > (pushed - seconds - 0.05) * SAMPLE_RATE
    joined = np.concatenate([*found, resampler.flush()])
    assert len(joined) == len(whole)
    assert np.abs(joined - whole).max() < 1e-6


def test_another_resampler_agrees() -> None:
    wave = sum((tone(hz, 44_100, 2, 0.1) for hz in (100, 440, 1000, 3000, 6000)), np.zeros(88_200, np.float32))
    ours = resample(wave[None], 44_100).samples
    theirs = soxr.resample(wave, 44_100, SAMPLE_RATE, "VHQ")
    assert np.abs(ours - theirs)[800:-800].max() < 1e-3


def test_what_16_khz_cannot_hold_vanishes_instead_of_folding_back() -> None:
    assert loudness(resample(tone(7000, 48_000, 2, 1.0)[None], 48_000).samples) == pytest.approx(0, abs=0.1)
    assert loudness(resample(tone(9000, 48_000, 2, 1.0)[None], 48_000).samples) < -100


@pytest.mark.parametrize("num_samples", [0, 1, 2, 3, 479, 480, 481, 480_001])
def test_the_length_is_rounded_up(num_samples: int) -> None:
    assert len(resample(noise(1, num_samples), 48_000).samples) == math.ceil(num_samples / 3)
    assert len(resample(noise(1, num_samples), 44_100).samples) == math.ceil(num_samples * 160 / 441)
    assert len(resample(noise(1, num_samples), 16_000).samples) == num_samples


@pytest.mark.parametrize("rate", ODD_RATES)
def test_a_rate_that_needs_a_filter_of_gigabytes_is_refused(rate: int) -> None:
    assert not is_convertible(rate)


@pytest.mark.parametrize("rate", RATES_IN_USE)
def test_no_rate_in_use_is_refused(rate: int) -> None:
    assert is_convertible(rate)


@pytest.mark.parametrize("rate", [-8000, 0, 769_000, 2_147_472_000])
def test_a_rate_that_nothing_records_at_is_refused(rate: int) -> None:
    assert not is_convertible(rate)


def test_channels_are_mixed_by_their_mean() -> None:
    left, right = tone(440, 16_000, 1), tone(1000, 16_000, 1)
    assert np.allclose(resample(np.stack([left, right]), 16_000).samples, (left + right) / 2, atol=1e-6)
    assert np.abs(resample(np.stack([left, -left]), 16_000).samples).max() == 0
    six = noise(6, 4800)
    assert np.allclose(resample(six, 16_000).samples, six.mean(0), atol=1e-6)


def test_the_channel_count_may_change_between_pieces() -> None:
    left = tone(440, 16_000, 1)
    pieces = [left[None, :8000], np.stack([left, left, left])[:, 8000:]]
    assert np.allclose(resample_pieces(map(mix_down, pieces), 16_000), left, atol=1e-6)


@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_what_is_not_a_finite_number_becomes_silence(rate: int) -> None:
    wave = np.zeros((2, rate), np.float32)
    wave[0, 100:105] = np.nan
    wave[1, 200] = np.inf
    wave[:, 300] = np.inf, -np.inf
    assert np.abs(resample(wave, rate).samples).max() == 0
    for one_channel in wave:
        assert np.abs(resample(one_channel[None], rate).samples).max() == 0


@pytest.mark.parametrize("rate", [8000, 16_000, 48_000])
def test_the_result_is_contiguous_float32_within_full_scale(rate: int) -> None:
    square = np.sign(tone(440, rate, 1))[None] * np.float32(3e38)
    samples = resample(np.repeat(square, 2, 0), rate).samples
    assert samples.dtype == np.float32
    assert samples.flags.c_contiguous
    assert np.abs(samples).max() == 1


@pytest.mark.parametrize("channels", [1, 2])
@pytest.mark.parametrize("rate", [16_000, 48_000])
def test_the_caller_keeps_its_samples_as_they_were(channels: int, rate: int) -> None:
    wave = noise(channels, rate) * 4
    wave[0, 7] = np.nan
    before = wave.copy()
    resample(wave, rate).samples[:] = 0
    assert np.array_equal(wave, before, equal_nan=True)
