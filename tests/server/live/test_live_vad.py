"""How the frames of live sessions become sound and speech probabilities."""

from __future__ import annotations

import asyncio
import io
import random
import time

import numpy as np
import pytest
import soundfile
import soxr

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.engines.silero import SileroDetector
from parakeet_stt.media import resampling
from parakeet_stt.server.live.live_vad import MAX_BYTES, Feed, LiveVad
from parakeet_stt.server.live.pcm import Encoding, is_rate
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities
from tests.conftest import Sample, encode
from tests.sockets import pcm


@pytest.fixture(scope="module")
def detector() -> SileroDetector:
    return SileroDetector()


@pytest.fixture(scope="module")
def sound(samples: dict[str, Sample]) -> Samples:
    return samples["two-sentences"].audio().samples


def detected(
    detector: SileroDetector,
    streams: list[bytes],
    sizes: list[int],
    encoding: Encoding = "pcm_s16le",
    rate: int = 16_000,
) -> list[tuple[Samples, Probabilities]]:
    """Sound and probabilities of several sessions at once, each in frames of its own size."""

    async def one(live_vad: LiveVad, data: bytes, size: int) -> tuple[Samples, Probabilities]:
        parts: list[tuple[Samples, Probabilities]] = []
        failures: list[Exception] = []
        stream = await live_vad.open_input(encoding, rate)
        feed = Feed(stream, lambda samples, found: parts.append((samples, found)), failures.append)
        for at in range(0, len(data), size):
            live_vad.push(feed, data[at : at + size])
            await asyncio.sleep(0)
        live_vad.push(feed, b"", is_last=True)
        await live_vad.flush(feed)
        if failures:
            raise failures[0]
        return np.concatenate([part[0] for part in parts]), np.concatenate([part[1] for part in parts])

    async def main() -> list[tuple[Samples, Probabilities]]:
        live_vad = LiveVad(detector)
        try:
            return await asyncio.gather(*(one(live_vad, *job) for job in zip(streams, sizes, strict=True)))
        finally:
            live_vad.close()

    return asyncio.run(main())


def test_each_of_many_sessions_is_heard_as_if_it_were_alone(detector: SileroDetector, sound: Samples) -> None:
    pick = random.Random(2)
    cuts = [sound[pick.randrange(40_000) :][: pick.randrange(20_000, 60_000)] for _ in range(12)]
    found = detected(detector, [pcm(cut) for cut in cuts], [pick.randrange(1, 4_000) for _ in cuts])
    for cut, (samples, probabilities) in zip(cuts, found, strict=True):
        stream = detector.stream()
        alone = np.concatenate([stream.push(samples), stream.flush()])
        assert np.abs(samples - cut).max() < 1e-4
        assert len(probabilities) == -(-len(cut) // WINDOW_SAMPLES)
        assert np.abs(probabilities - alone).max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 24_000, 44_100, 48_000])
def test_resampling_has_no_seams_between_frames(detector: SileroDetector, sound: Samples, rate: int) -> None:
    data = pcm(soxr.resample(sound, SAMPLE_RATE, rate).clip(-1, 1))
    (whole, _), (pieces, _) = detected(detector, [data, data], [len(data), 333], rate=rate)
    assert len(whole) == -(-len(data) // 2 * SAMPLE_RATE // rate)
    assert np.abs(whole - pieces).max() < 1e-5


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_decoded_as_libsndfile_does(detector: SileroDetector, encoding: Encoding, subtype: str) -> None:
    every = bytes(range(256))
    ((found, _),) = detected(detector, [every], [100], encoding)
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
    ((found, _),) = detected(detector, [data], [321], encoding)
    assert np.corrcoef(found, sound)[0, 1] > 0.999


def test_a_detector_that_fails_is_told_to_those_who_asked_and_the_next_are_heard(sound: Samples) -> None:
    class Broken(SileroDetector):
        fails = True

        def detect(self, windows: Probabilities, states: Probabilities) -> tuple[Probabilities, Probabilities]:
            if self.fails:
                raise RuntimeError("broken")
            return super().detect(windows, states)

    detector = Broken()
    with pytest.raises(RuntimeError, match="broken"):
        detected(detector, [pcm(sound)], [1_000])
    detector.fails = False
    assert detected(detector, [pcm(sound)], [1_000])[0][1].max() > 0.9


def test_floats_that_are_no_numbers_are_silence(detector: SileroDetector) -> None:
    data = np.array([np.nan, np.inf, 0.5, -7.0] * 4_000, "<f4").tobytes()
    ((found, probabilities),) = detected(detector, [data], [999], "pcm_f32le")
    assert np.isfinite(found).all()
    assert np.isfinite(probabilities).all()


def test_a_filter_for_an_odd_rate_does_not_stall_the_event_loop(detector: SileroDetector) -> None:
    """It was built where the session began: half a second for each of sixty hellos with rates of their own."""
    rates = [rate for rate in range(47_000, 48_000, 5) if is_rate(rate)][:12]
    resampling._kernel.cache_clear()

    async def main() -> float:
        live_vad = LiveVad(detector)
        latest = 0.0

        async def watch() -> None:
            nonlocal latest
            while True:
                began = time.perf_counter()
                await asyncio.sleep(0.001)
                latest = max(latest, time.perf_counter() - began)

        watching = asyncio.create_task(watch())
        try:
            await asyncio.gather(*(live_vad.open_input("pcm_s16le", rate) for rate in rates))
        finally:
            watching.cancel()
            live_vad.close()
        return latest

    began = time.perf_counter()
    latest = asyncio.run(main())
    assert len(rates) == 12
    assert latest < 0.5 * (time.perf_counter() - began), "the loop stood still while filters were built"
    assert resampling._kernel.cache_info().misses == len(rates)


@pytest.mark.parametrize(
    ("rate", "known"), [(8_000, True), (16_000, True), (48_000, True), (4_000, False), (15_999, False)]
)
def test_which_rates_may_be_sent(rate: int, known: bool) -> None:
    assert is_rate(rate) is known


def test_frames_that_come_while_the_detector_computes_wait_for_one_tick(detector: SileroDetector) -> None:
    """Forty streams in frames of 20 ms: a call of the detector for each window would be 40 for each window."""

    class Counting(SileroDetector):
        calls, windows = 0, 0

        def detect(self, windows: Probabilities, states: Probabilities) -> tuple[Probabilities, Probabilities]:
            Counting.calls += 1
            Counting.windows += len(windows)
            return super().detect(windows, states)

    sounds = [bytes(32_000)] * 40
    found = detected(Counting(), sounds, [640] * 40)
    assert all(len(probabilities) == -(-16_000 // WINDOW_SAMPLES) for _, probabilities in found)
    assert Counting.windows == 40 * -(-16_000 // WINDOW_SAMPLES)
    assert Counting.calls < Counting.windows / 10


def test_a_stream_that_is_far_behind_delays_no_other(detector: SileroDetector) -> None:
    async def main() -> bool:
        live_vad = LiveVad(detector)
        try:
            fast, slow = [
                Feed(await live_vad.open_input("pcm_s16le", 16_000), lambda *_: None, lambda _: None) for _ in range(2)
            ]
            live_vad.push(fast, bytes(200 * MAX_BYTES))
            live_vad.push(slow, bytes(640))
            await live_vad.flush(slow)
            is_behind = fast.is_pending
            live_vad.discard(fast)
            return is_behind
        finally:
            live_vad.close()

    assert asyncio.run(main())
