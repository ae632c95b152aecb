"""How the frames of live sessions become sound and speech probabilities."""

from __future__ import annotations

import asyncio
import io
import random

import numpy as np
import pytest
import soundfile
import soxr

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.engines.silero import SileroDetector
from parakeet_stt.offline.utterances import Probabilities
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES
from parakeet_stt.server.live.live_vad import Ear, Encoding, Hearing, is_rate
from tests.conftest import Sample, encode
from tests.sockets import pcm


@pytest.fixture(scope="module")
def detector() -> SileroDetector:
    return SileroDetector()


@pytest.fixture(scope="module")
def sound(samples: dict[str, Sample]) -> Samples:
    return samples["two-sentences"].audio().samples


def heard(
    detector: SileroDetector,
    streams: list[bytes],
    sizes: list[int],
    encoding: Encoding = "pcm_s16le",
    rate: int = 16_000,
) -> list[tuple[Samples, Probabilities]]:
    """Sound and probabilities of several sessions at once, each in frames of its own size."""

    async def one(hearing: Hearing, data: bytes, size: int) -> tuple[Samples, Probabilities]:
        ear = Ear(encoding, rate)
        parts = [await hearing.hear(ear, data[at : at + size]) for at in range(0, len(data), size)]
        parts.append(await hearing.hear(ear, b"", is_last=True))
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    async def main() -> list[tuple[Samples, Probabilities]]:
        hearing = Hearing(detector)
        try:
            return await asyncio.gather(*(one(hearing, *job) for job in zip(streams, sizes, strict=True)))
        finally:
            hearing.close()

    return asyncio.run(main())


def test_each_of_many_sessions_is_heard_as_if_it_were_alone(detector: SileroDetector, sound: Samples) -> None:
    pick = random.Random(2)
    cuts = [sound[pick.randrange(40_000) :][: pick.randrange(20_000, 60_000)] for _ in range(12)]
    found = heard(detector, [pcm(cut) for cut in cuts], [pick.randrange(1, 4_000) for _ in cuts])
    for cut, (samples, probabilities) in zip(cuts, found, strict=True):
        stream = detector.stream()
        alone = np.concatenate([stream.probabilities(samples), stream.rest()])
        assert np.abs(samples - cut).max() < 1e-4
        assert len(probabilities) == -(-len(cut) // WINDOW_SAMPLES)
        assert np.abs(probabilities - alone).max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_resampling_has_no_seams_between_frames(detector: SileroDetector, sound: Samples, rate: int) -> None:
    data = pcm(soxr.resample(sound, SAMPLE_RATE, rate).clip(-1, 1))
    (whole, _), (pieces, _) = heard(detector, [data, data], [len(data), 333], rate=rate)
    assert len(whole) == -(-len(data) // 2 * SAMPLE_RATE // rate)
    assert np.abs(whole - pieces).max() < 1e-5


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_decoded_as_libsndfile_does(detector: SileroDetector, encoding: Encoding, subtype: str) -> None:
    every = bytes(range(256))
    ((found, _),) = heard(detector, [every], [100], encoding)
    truth, _ = soundfile.read(
        io.BytesIO(every), channels=1, samplerate=16_000, format="RAW", subtype=subtype, dtype="float32"
    )
    assert np.abs(found - truth).max() < 1e-6


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_g711_as_ffmpeg_encodes_it_is_understood(
    detector: SileroDetector, sound: Samples, encoding: Encoding, subtype: str
) -> None:
    wav = encode(sound, container="wav", codec=subtype, rate=16_000)
    data = wav[wav.index(b"data") + 8 :][: len(sound)]
    ((found, _),) = heard(detector, [data], [321], encoding)
    assert np.corrcoef(found, sound)[0, 1] > 0.999


def test_a_detector_that_fails_is_told_to_those_who_asked_and_the_next_are_heard(sound: Samples) -> None:
    class Broken(SileroDetector):
        fails = True

        def probabilities(self, windows: Probabilities, memories: Probabilities) -> tuple[Probabilities, Probabilities]:
            if self.fails:
                raise RuntimeError("broken")
            return super().probabilities(windows, memories)

    detector = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        heard(detector, [pcm(sound)], [1_000])
    detector.fails = False
    assert heard(detector, [pcm(sound)], [1_000])[0][1].max() > 0.9


def test_floats_that_are_no_numbers_are_silence(detector: SileroDetector) -> None:
    data = np.array([np.nan, np.inf, 0.5, -7.0] * 4_000, "<f4").tobytes()
    ((found, probabilities),) = heard(detector, [data], [999], "pcm_f32le")
    assert np.isfinite(found).all()
    assert np.isfinite(probabilities).all()


@pytest.mark.parametrize(
    ("rate", "known"), [(8_000, True), (16_000, True), (48_000, True), (4_000, False), (15_999, False)]
)
def test_which_rates_may_be_sent(rate: int, known: bool) -> None:
    assert is_rate(rate) is known
