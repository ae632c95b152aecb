"""Many callers at once, against the real model and a real server: everybody gets their own text, and nothing stalls."""

from __future__ import annotations

import asyncio
import io
import itertools
import tempfile
import time
import wave
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from statistics import quantiles

import httpx
import numpy as np
import openai
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from tests.conftest import Sample, Server
from tests.parts import front_over


def as_wav(*parts: Audio) -> bytes:
    out = io.BytesIO()
    with wave.open(out, "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(SAMPLE_RATE)
        for part in parts:
            file.writeframes((part.samples * 32767).astype(np.int16).tobytes())
    return out.getvalue()


def ask(client: httpx.Client, server: Server, data: bytes) -> httpx.Response:
    return client.post(
        f"{server.openai_url}/audio/transcriptions", files={"file": ("a.wav", data)}, data={"model": "whisper-1"}
    )


@pytest.fixture(scope="module")
def said(samples: dict[str, Sample]) -> list[tuple[str, bytes]]:
    """Two recordings and what the server answers for each."""
    return [(samples[name].text, as_wav(samples[name].audio())) for name in ("short", "two-sentences")]


@pytest.fixture
def client() -> Iterator[httpx.Client]:
    with httpx.Client(timeout=120, limits=httpx.Limits(max_connections=None)) as client:
        yield client


def test_256_callers_at_once_get_their_own_text(
    client: httpx.Client, server: Server, said: list[tuple[str, bytes]]
) -> None:
    asked = list(itertools.islice(itertools.cycle(said), 256))
    with ThreadPoolExecutor(256) as pool:
        answers = list(pool.map(lambda one: ask(client, server, one[1]), asked))
    assert [answer.status_code for answer in answers] == [200] * 256
    assert [answer.json()["text"] for answer in answers] == [text for text, _ in asked]


def test_over_the_limit_429_says_when_to_come_back_and_the_client_does(
    client: httpx.Client, exposed: Server, said: list[tuple[str, bytes]]
) -> None:
    asked = list(itertools.islice(itertools.cycle(said), 48))
    with ThreadPoolExecutor(48) as pool:
        answers = list(pool.map(lambda one: ask(client, exposed, one[1]), asked))
        refused = [answer for answer in answers if answer.status_code != 200]
        assert 0 < len(refused) < 48
        for answer in refused:
            assert answer.status_code == 429
            assert 1 <= int(answer.headers["retry-after"]) <= 60
            assert answer.json()["error"]["code"] == "rate_limit_exceeded"
            assert answer.headers["x-request-id"].startswith("req_")
        back = asked[:24]  # they come back all at once, and a few are taken on each time
        official = openai.OpenAI(base_url=exposed.openai_url, api_key="none", max_retries=50)
        texts = pool.map(
            lambda one: official.audio.transcriptions.create(file=("a.wav", one[1]), model="whisper-1").text, back
        )
        assert list(texts) == [text for text, _ in back]
    assert exposed.counter("stt_refused_total") >= len(refused)


@pytest.mark.alone
def test_clips_pass_a_long_file_by(
    client: httpx.Client, server: Server, samples: dict[str, Sample], said: list[tuple[str, bytes]]
) -> None:
    text, clip = said[0]

    def delay() -> float:
        began = time.perf_counter()
        assert ask(client, server, clip).json()["text"] == text
        return time.perf_counter() - began

    idle = [delay() for _ in range(12)]
    long = as_wav(*[samples["two-minutes"].audio()] * 6)
    with ThreadPoolExecutor(1) as pool:
        running = pool.submit(ask, client, server, long)
        while "stt_queue_audio_seconds 0.0" in (before := client.get(f"{server.url}/metrics").text):
            assert not running.done(), "the long file never waited"
            time.sleep(0.01)
        loaded = []
        while not running.done():
            loaded.append(delay())
        assert running.result().status_code == 200
    assert len(loaded) >= 5
    longest_batch = longest_batch_of(client.get(f"{server.url}/metrics").text, before)
    assert quantiles(loaded, n=20)[-1] <= 2 * quantiles(idle, n=20)[-1] + longest_batch


def longest_batch_of(after: str, before: str) -> float:
    """The upper bound of the slowest batch between two readings of the metrics, in seconds."""

    def buckets(text: str) -> dict[float, float]:
        lines = (line for line in text.splitlines() if line.startswith("stt_inference_seconds_bucket"))
        return {float(line.split('"')[1]): float(line.split()[1]) for line in lines}

    late, early = buckets(after), buckets(before)
    total = late[float("inf")] - early[float("inf")]
    return min(bound for bound in late if late[bound] - early[bound] == total)


def test_metrics_count_what_happened(client: httpx.Client, server: Server, said: list[tuple[str, bytes]]) -> None:
    before = server.counters()
    ask(client, server, said[0][1])
    assert ask(client, server, b"no audio").status_code == 400
    client.get(f"{server.url}/v1/unheard-of/{'x' * 50}")
    after = server.counters()
    grown = {name: after[name] - before.get(name, 0) for name in after}
    route = 'method="POST",route="/v1/audio/transcriptions"'
    assert grown[f'stt_requests_total{{code="200",{route}}}'] == 1
    assert grown[f'stt_requests_total{{code="400",{route}}}'] == 1
    assert grown["stt_audio_seconds_total"] == pytest.approx(len(said[0][1]) / 2 / SAMPLE_RATE, abs=0.01)
    for histogram in ("queue_seconds", "inference_seconds", "batch_items", "batch_fill"):
        assert grown[f"stt_{histogram}_count"] == 1
    assert after["stt_detect_seconds_count"] == 0  # on a CPU media workers detect, as a part of decoding
    assert grown["stt_decode_seconds_count"] == 2  # what can't be decoded takes its time too
    assert not any("unheard" in name for name in after)
    assert after["stt_rtfx"] > 0


@pytest.mark.alone
def test_the_event_loop_is_never_blocked(said: list[tuple[str, bytes]]) -> None:
    """p99 of how late a timer of 5 ms fires while 64 callers keep the device busy: under 20 ms.

    In one of three runs: what blocks the loop does so in each, what else a shared machine does need not.
    """
    from parakeet_stt.engines.parakeet import Parakeet

    front = front_over(lambda: Parakeet(BUNDLED_FILE, device="cpu"))

    async def lags() -> list[float]:
        found: list[float] = []
        until = time.monotonic() + 3

        async def caller(number: int) -> None:
            while time.monotonic() < until:
                text, data = said[number % 2]
                with tempfile.TemporaryFile() as file:
                    file.write(data)
                    file.seek(0)
                    assert (await front.components.transcriber.transcribe(file)).transcript.text == text

        async def watch() -> None:
            while time.monotonic() < until:
                began = time.perf_counter()
                await asyncio.sleep(0.005)
                found.append(time.perf_counter() - began - 0.005)

        await asyncio.gather(watch(), *(caller(number) for number in range(64)))
        return found

    try:
        worst: list[float] = []
        while min(worst, default=1.0) >= 0.020:
            assert len(worst) < 3, worst
            worst.append(quantiles(front.run(lags()), n=100)[-1])
    finally:
        front.close()
