"""How the frames of live sessions become sound and speech probabilities."""

from __future__ import annotations

import asyncio
import io
import random
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

import numpy as np
import pytest
import soundfile
import soxr

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.media.filters import Filters
from parakeet_stt.protocols import DetectorStates
from parakeet_stt.server.live.live_vad import MAX_BYTES, LiveVad, RemoteDetector
from parakeet_stt.server.live.pcm import Encoding, is_rate
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities, Windows
from tests.conftest import Sample, encode
from tests.server.live.hearing import Heard, Hearing
from tests.sockets import pcm


class WatchedDetector(OnnxDetector):
    """The real detector, which counts its calls, and fails while it is told to. hold: it waits for this."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.windows, self.fails = 0, 0, False
        self.called, self.hold = threading.Event(), threading.Event()
        self.hold.set()

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        self.calls += 1
        self.called.set()
        self.windows += sum(map(len, windows))
        self.hold.wait(20)
        if self.fails:
            raise RuntimeError("broken")
        return super().detect(windows, states)


@pytest.fixture
def detector() -> WatchedDetector:
    return WatchedDetector()


@pytest.fixture(params=[False, True], ids=["front", "device"])
def hearing(detector: WatchedDetector, request: pytest.FixtureRequest) -> Iterator[Hearing]:
    running = Hearing(detector, on_device=request.param)
    yield running
    running.device.close()


@pytest.fixture(scope="module")
def sound(samples: dict[str, Sample]) -> Samples:
    return samples["two-sentences"].audio().samples


def test_each_of_many_sessions_is_heard_as_if_it_were_alone(
    hearing: Hearing, detector: WatchedDetector, sound: Samples
) -> None:
    pick = random.Random(2)
    cuts = [sound[pick.randrange(40_000) :][: pick.randrange(20_000, 60_000)] for _ in range(12)]
    for heard, cut in zip(
        hearing.hear([pcm(cut) for cut in cuts], [pick.randrange(1, 4_000) for _ in cuts]), cuts, strict=True
    ):
        alone = DetectorStream(detector)
        assert heard.failure is None
        assert np.abs(heard.samples - cut).max() < 1e-4
        assert heard.counted == len(cut)
        assert len(heard.probabilities) == -(-len(cut) // WINDOW_SAMPLES)
        whole = np.concatenate([alone.push(heard.samples), alone.flush()])
        assert np.abs(heard.probabilities - whole).max() < 1e-3


@pytest.mark.parametrize("rate", [8_000, 11_025, 24_000, 44_100, 48_000])
def test_resampling_has_no_seams_between_frames(hearing: Hearing, sound: Samples, rate: int) -> None:
    data = pcm(soxr.resample(sound, SAMPLE_RATE, rate).clip(-1, 1))
    whole, pieces = hearing.hear([data, data], [len(data), 333], rate=rate)
    assert len(whole.samples) == -(-len(data) // 2 * SAMPLE_RATE // rate)
    assert np.abs(whole.samples - pieces.samples).max() < 1e-5
    assert np.abs(whole.probabilities - pieces.probabilities).max() < 1e-3


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_g711_is_decoded_as_libsndfile_does(hearing: Hearing, encoding: Encoding, subtype: str) -> None:
    every = bytes(range(256))
    (heard,) = hearing.hear([every], [100], encoding)
    truth, _ = soundfile.read(
        io.BytesIO(every), channels=1, samplerate=16_000, format="RAW", subtype=subtype, dtype="float32"
    )
    assert np.abs(heard.samples - truth).max() < 1e-6


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "pcm_mulaw"), ("alaw", "pcm_alaw")])
def test_g711_as_ffmpeg_encodes_it_is_understood(
    hearing: Hearing, sound: Samples, encoding: Encoding, subtype: str
) -> None:
    wav = encode(sound, container="wav", codec=subtype, rate=16_000)
    data = wav[wav.index(b"data") + 8 :][: len(sound)]
    (heard,) = hearing.hear([data], [321], encoding)
    assert np.corrcoef(heard.samples, sound)[0, 1] > 0.999


def test_a_detector_that_fails_ends_those_who_asked_with_the_reason_and_the_next_are_heard(
    hearing: Hearing, detector: WatchedDetector, sound: Samples
) -> None:
    detector.fails = True
    for heard in hearing.hear([pcm(sound)] * 2, [1_000, 700]):
        assert "broken" in str(heard.failure)
        assert not len(heard.probabilities)
    detector.fails = False
    (heard,) = hearing.hear([pcm(sound)], [1_000])
    assert heard.failure is None
    assert heard.probabilities.max() > 0.9


def test_a_device_whose_detector_fails_ends_no_session_of_another_device(sound: Samples) -> None:
    broken, well = WatchedDetector(), WatchedDetector()
    broken.fails = True
    hearings = [Hearing(one, on_device=True) for one in (broken, well)]
    heards = [Heard(np.zeros(0, np.float32)) for _ in hearings]

    async def main() -> None:
        live_vad = LiveVad(RemoteDetector())
        async with hearings[0].device.connected() as first, hearings[1].device.connected() as second:
            async with hearings[0].feed(first, heards[0]) as one, hearings[1].feed(second, heards[1]) as other:
                for feed in (one, other):  # in one tick
                    live_vad.push(feed, pcm(sound)[:20_000], is_last=True)
                for feed in (one, other):
                    await live_vad.flush(feed)

    try:
        asyncio.run(asyncio.wait_for(main(), 60))
    finally:
        for hearing in hearings:
            hearing.device.close()
    assert "broken" in str(heards[0].failure)
    assert heards[1].failure is None
    assert len(heards[1].probabilities) == -(-10_000 // WINDOW_SAMPLES)


def test_floats_that_are_no_numbers_are_silence(hearing: Hearing) -> None:
    data = np.array([np.nan, np.inf, 0.5, -7.0] * 4_000, "<f4").tobytes()
    (heard,) = hearing.hear([data], [999], "pcm_f32le")
    assert np.isfinite(heard.samples).all()
    assert heard.samples.any()
    assert np.isfinite(heard.probabilities).all()


def test_a_filter_for_an_odd_rate_is_made_by_the_device_once_and_does_not_stall_the_event_loop(
    hearing: Hearing,
) -> None:
    """It was built where the session began: half a second for each of sixty hellos with rates of their own."""
    rates = [rate for rate in range(47_000, 48_000, 5) if is_rate(rate)][:12]
    made: list[int] = []

    async def main() -> tuple[float, float]:
        async with hearing.running() as (_, client):

            async def make(rate: int) -> None:
                made.append(rate)
                await client.make_filter(rate)

            filters, latest = Filters(hearing.device.paths.filters, make), 0.0

            async def watch() -> None:
                nonlocal latest
                while True:
                    began = time.perf_counter()
                    await asyncio.sleep(0.001)
                    latest = max(latest, time.perf_counter() - began)

            watching = asyncio.create_task(watch())
            began = time.perf_counter()
            found = await asyncio.gather(*(filters.find(rate) for rate in rates))
            seconds = time.perf_counter() - began
            watching.cancel()
            assert [one and one.rate for one in found] == rates
            for rate in rates:
                await filters.find(rate)
            return latest, seconds

    latest, seconds = asyncio.run(main())
    assert len(rates) == 12
    assert latest < 0.5 * seconds, "the loop stood still while filters were built"
    assert sorted(made) == rates
    files = [hearing.device.paths.filters / f"filter-{rate}.npy" for rate in rates]
    assert all(file.exists() for file in files)


@pytest.mark.parametrize(
    ("rate", "known"),
    [(8_000, True), (16_000, True), (48_000, True), (4_000, False), (15_999, False), (8_008, False)],  # of 2 million
)
def test_which_rates_may_be_sent(rate: int, known: bool) -> None:
    assert is_rate(rate) is known


def test_frames_that_come_while_the_detector_computes_wait_for_one_tick(
    hearing: Hearing, detector: WatchedDetector
) -> None:
    """Forty streams in frames of 20 ms: a call of the detector for each window would be 40 for each window."""
    found = hearing.hear([bytes(32_000)] * 40, [640] * 40)
    windows = -(-16_000 // WINDOW_SAMPLES)
    assert all(len(heard.probabilities) == windows for heard in found)
    assert detector.windows == 40 * windows
    assert detector.calls < detector.windows / 10


def test_all_streams_that_wait_go_through_the_detector_in_one_call(hearing: Hearing, detector: WatchedDetector) -> None:
    heards = [Heard(np.zeros(0, np.float32)) for _ in range(10)]

    async def main() -> None:
        async with asyncio.timeout(60), hearing.running() as (live_vad, client), AsyncExitStack() as stack:
            feeds = [await stack.enter_async_context(hearing.feed(client, heard)) for heard in heards]
            detector.hold.clear()
            live_vad.push(feeds[0], bytes(2 * WINDOW_SAMPLES))
            assert await asyncio.to_thread(detector.called.wait, 20)
            for feed in feeds:
                live_vad.push(feed, bytes(6 * WINDOW_SAMPLES))
            detector.hold.set()
            for feed in feeds:
                await live_vad.flush(feed)

    asyncio.run(main())
    assert detector.calls == 2
    assert [len(heard.probabilities) for heard in heards] == [4] + [3] * 9


def test_a_stream_that_is_far_behind_delays_no_other(hearing: Hearing, detector: WatchedDetector) -> None:
    async def main() -> tuple[bool, int]:
        async with hearing.running() as (live_vad, client):
            one, other = Heard(np.zeros(0, np.float32)), Heard(np.zeros(0, np.float32))
            async with hearing.feed(client, one) as fast, hearing.feed(client, other) as slow:
                live_vad.push(fast, bytes(200 * MAX_BYTES))
                live_vad.push(slow, bytes(640))
                await live_vad.flush(slow)
                is_behind = fast.is_pending
                live_vad.discard(fast)
                return is_behind, one.counted

    assert asyncio.run(main()) == (True, MAX_BYTES // 2)
