"""The original wrapper's faults, each by its number in the list of them; those of its socket are tested with ours."""

from __future__ import annotations

import concurrent.futures
import time

import httpx
import kaldialign
import pytest

from tests.conftest import Sample, Server, encode, without_case_or_punctuation


def post(server: Server, data: bytes, **fields: str) -> httpx.Response:
    return httpx.post(f"{server.url}/transcribe", files={"file": data}, data=fields, timeout=120)


def test_1_the_default_request_is_answered(server: Server, samples: dict[str, Sample]) -> None:
    """It answered 500: the route unpacked pairs, and the chunker gave paths."""
    response = post(server, samples["two-minutes"].path.read_bytes())
    assert response.status_code == 200
    assert response.json()["timestamps"] is None


def test_5_nothing_is_dropped_between_the_parts_of_a_long_file(server: Server, samples: dict[str, Sample]) -> None:
    """Its chunker dropped 256 samples of every two seconds."""
    sample = samples["two-minutes"]
    found = without_case_or_punctuation(post(server, sample.path.read_bytes()).json()["text"])
    said = without_case_or_punctuation(sample.text)
    assert kaldialign.edit_distance(said, found)["del"] <= 0.01 * len(said)


@pytest.mark.alone
def test_7_health_is_prompt_while_a_file_is_transcribed_and_timestamps_change_nothing_for_others(
    server: Server, samples: dict[str, Sample]
) -> None:
    """Inference ran on the event loop, and asking for timestamps changed the decoding of every later request."""
    plain = post(server, samples["short"].path.read_bytes()).json()
    with concurrent.futures.ThreadPoolExecutor(1) as other:
        stamped = other.submit(post, server, samples["two-minutes"].path.read_bytes(), include_timestamps="true")
        slowest = 0.0
        while not stamped.done():
            asked = time.perf_counter()
            assert httpx.get(f"{server.url}/healthz").json()["status"] == "ok"
            slowest = max(slowest, time.perf_counter() - asked)
    assert slowest < 0.5
    stamps = stamped.result().json()["timestamps"]
    assert {kind: bool(entries) for kind, entries in stamps.items()} == {"word": True, "segment": True, "char": True}
    assert post(server, samples["short"].path.read_bytes()).json() == plain


def test_8_a_file_that_fails_is_told_and_the_next_is_served(server: Server, samples: dict[str, Sample]) -> None:
    """A failure dropped its results silently, and left temporary files."""
    refused = post(server, b"no sound at all")
    assert refused.status_code == 400
    assert refused.json()["error"]["param"] == "file"
    assert post(server, samples["short"].path.read_bytes()).json()["text"] == samples["short"].text


@pytest.mark.parametrize("rate", [8_000, 22_050, 44_100, 48_000])
def test_10_any_rate_is_resampled(server: Server, samples: dict[str, Sample], rate: int) -> None:
    """Whatever was not 16 kHz took a fallback: the function for it did not exist."""
    sample = samples["two-sentences"]
    sound = encode(sample.audio().samples, container="wav", codec="pcm_s16le", rate=rate, layout="stereo")
    assert post(server, sound).json()["text"] == sample.text


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("model", "another"), ("response_format", "xml"), ("language", "fr"), ("temperature", "9"),
        ("stream", "perhaps"), ("prompt", "Kubernetes"),
    ],
)  # fmt: skip
def test_11_no_field_is_ignored(server: Server, samples: dict[str, Sample], field: str, value: str) -> None:
    """model, response_format, language, prompt, temperature and stream were read by nobody."""
    response = httpx.post(
        f"{server.openai_url}/audio/transcriptions",
        data={"model": "whisper-1", field: value},
        files={"file": samples["short"].path.read_bytes()},
        timeout=60,
    )
    if field == "prompt":  # what it does is tested in test_boosting.py; it is no error
        assert response.status_code == 200
    else:
        assert response.status_code in (400, 404)
        assert response.json()["error"]["param"] == field
