"""OpenAI's contract on a real server: every combination of fields against its schemas, and its official client."""

from __future__ import annotations

import asyncio
import io
import itertools
import json
import re
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import httpx
import numpy as np
import openai
import pytest

from parakeet_stt.audio import SAMPLE_RATE
from scripts.release import fuzz
from tests import contract
from tests.conftest import Sample, Server, encode

if TYPE_CHECKING:
    from parakeet_stt.engines.parakeet import Parakeet

FORMATS = ("json", "text", "srt", "verbose_json", "vtt", "diarized_json")
GRANULARITIES: tuple[tuple[str, ...], ...] = ((), ("word",), ("segment",), ("word", "segment"))


def ask(http: httpx.Client, path: Path, **fields: Any) -> httpx.Response:
    return http.post("/audio/transcriptions", data={"model": "whisper-1", **fields}, files={"file": path.read_bytes()})


def events_of(response: httpx.Response) -> list[dict[str, Any]]:
    assert response.headers["content-type"].startswith("text/event-stream")
    blocks = response.text.split("\n\n")
    assert blocks.pop() == ""
    assert all(block.startswith("data: ") and "\n" not in block for block in blocks)
    return [json.loads(block.removeprefix("data: ")) for block in blocks]


def is_legal(response_format: str, granularities: tuple[str, ...], logprobs: bool) -> bool:
    """Of whisper-1, which answers unstreamed in formats that can't be streamed."""
    if response_format == "diarized_json" or (granularities and response_format != "verbose_json"):
        return False
    return not logprobs or response_format == "json"


@pytest.mark.parametrize("logprobs", [False, True], ids=["", "logprobs"])
@pytest.mark.parametrize("stream", [False, True], ids=["", "stream"])
@pytest.mark.parametrize("granularities", GRANULARITIES, ids="+".join)
@pytest.mark.parametrize("response_format", FORMATS)
def test_every_combination_is_answered_as_its_schema_says_or_refused(
    http: httpx.Client,
    samples: dict[str, Sample],
    response_format: str,
    granularities: tuple[str, ...],
    stream: bool,
    logprobs: bool,
) -> None:
    sample = samples["two-sentences"]
    fields: dict[str, Any] = {"response_format": response_format, "stream": "true" if stream else "false"}
    if granularities:
        fields["timestamp_granularities[]"] = list(granularities)
    if logprobs:
        fields["include[]"] = "logprobs"
    response = ask(http, sample.path, **fields)
    if not is_legal(response_format, granularities, logprobs):
        assert response.status_code == 400
        contract.check(response.json(), contract.ERROR)
        assert response.json()["error"]["param"] in ("response_format", "timestamp_granularities", "include")
        return
    assert response.status_code == 200
    assert re.fullmatch("req_[0-9a-f]{32}", response.headers["x-request-id"])
    if stream and response_format in ("json", "text"):
        *deltas, done = events_of(response)
        for delta in deltas:
            contract.check(delta, contract.DELTA_LOGPROBS if logprobs else contract.DELTA)
        contract.check(done, contract.DONE_LOGPROBS if logprobs else contract.DONE)
        assert "".join(delta["delta"] for delta in deltas) == done["text"] == sample.text
        if logprobs:
            assert [entry for delta in deltas for entry in delta["logprobs"]] == done["logprobs"]
    elif response_format == "verbose_json":
        schema = {
            (): contract.VERBOSE_SEGMENTS,
            ("segment",): contract.VERBOSE_SEGMENTS,
            ("word",): contract.VERBOSE_WORDS,
            ("word", "segment"): contract.VERBOSE_BOTH,
        }[granularities]
        contract.check(response.json(), schema)
        assert response.json()["text"] == sample.text
    elif response_format == "json":
        contract.check(response.json(), contract.JSON_LOGPROBS if logprobs else contract.JSON)
        assert response.json()["text"] == sample.text
    else:
        assert not response.headers["content-type"].startswith("application/json")
        assert sample.text.split()[0] in response.text


@pytest.mark.parametrize(
    "spelling",
    [
        {"timestamp_granularities[]": ["word", "segment"]},
        {"timestamp_granularities": ["word", "segment"]},
        {"timestamp_granularities[0]": "word", "timestamp_granularities[1]": "segment"},
        {"timestamp_granularities": '["word", "segment"]'},
    ],
)
def test_an_array_may_be_spelled_in_each_way(
    http: httpx.Client, samples: dict[str, Sample], spelling: dict[str, Any]
) -> None:
    body = ask(http, samples["short"].path, response_format="verbose_json", **spelling).json()
    contract.check(body, contract.VERBOSE_BOTH)


@pytest.mark.parametrize(
    "spelling",
    [
        {"chunking_strategy": "auto"},
        {"chunking_strategy": '{"type": "server_vad", "silence_duration_ms": 500}'},
        {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.4"},
        {"chunking_strategy": "null"},
    ],
)
def test_an_object_may_be_spelled_in_each_way(
    http: httpx.Client, samples: dict[str, Sample], spelling: dict[str, Any]
) -> None:
    response = ask(http, samples["short"].path, **spelling)
    assert (response.status_code, response.json()["text"]) == (200, samples["short"].text)


def test_the_chunking_strategy_decides_what_counts_as_speech(http: httpx.Client, samples: dict[str, Sample]) -> None:
    strict = {"chunking_strategy[type]": "server_vad", "chunking_strategy[threshold]": "0.9999999"}
    assert ask(http, samples["short"].path, **strict).json()["text"] == ""


def test_logprobs_sum_to_what_the_decoder_computed_and_spell_the_text_in_bytes(
    http: httpx.Client, samples: dict[str, Sample], engine: Parakeet
) -> None:
    sample = samples["short"]
    body = ask(http, sample.path, include="logprobs").json()
    verbose = ask(http, sample.path, response_format="verbose_json").json()
    total = sum(entry["logprob"] for entry in body["logprobs"])
    by_segments = sum(segment["avg_logprob"] * len(segment["tokens"]) for segment in verbose["segments"])
    assert total == pytest.approx(by_segments, abs=1e-3)
    assert b"".join(bytes(entry["bytes"]) for entry in body["logprobs"]).decode() == body["text"]
    (hypothesis,) = engine.recognize([sample.audio()])
    assert total == pytest.approx(sum(token.logprob for token in hypothesis.tokens), abs=0.5)  # less silence is decoded


@pytest.mark.alone
def test_the_first_words_of_five_minutes_come_before_a_fifth_of_the_time(
    http: httpx.Client, samples: dict[str, Sample]
) -> None:
    long = np.tile(samples["two-minutes"].audio().samples, 3)[: 300 * SAMPLE_RATE]
    data = encode(long, container="flac", codec="flac", rate=16_000)
    shares = []
    for _ in range(5):
        began = time.perf_counter()
        with http.stream(
            "POST", "/audio/transcriptions", data={"model": "whisper-1", "stream": "true"}, files={"file": data}
        ) as response:
            lines = response.iter_lines()
            first = next(lines)
            waited = time.perf_counter() - began
            *_, last = (line for line in lines if line)
        shares.append(waited / (time.perf_counter() - began))
        assert "transcript.text.delta" in first
        assert "transcript.text.done" in last
        if shares[-1] < 0.2:
            return
    pytest.fail(f"{shares}")  # the first block, of 15 s, is read and found whole; 0.16 on two cores


def test_an_error_after_the_first_words_is_the_last_event(exposed: Server, samples: dict[str, Sample]) -> None:
    sound = encode(np.tile(samples["two-minutes"].audio().samples, 2), container="flac", codec="flac", rate=16_000)
    with openai.OpenAI(base_url=exposed.openai_url, api_key="none", max_retries=0) as client:
        stream = client.audio.transcriptions.create(file=("long.flac", sound), model="whisper-1", stream=True)
        events_received: list[object] = []
        with pytest.raises(openai.APIError, match="240 seconds"):
            events_received.extend(stream)
    assert events_received


def test_without_keys_everybody_is_warned_of_a_service_that_others_reach(exposed: Server) -> None:
    assert "ANYBODY WHO REACHES 0.0.0.0" in exposed.log.read_text()


def test_nobody_is_warned_of_a_service_on_loopback(server: Server) -> None:
    assert "ANYBODY WHO REACHES" not in server.log.read_text()


def test_work_for_a_stream_ends_when_its_reader_leaves(server: Server, samples: dict[str, Sample]) -> None:
    long = np.tile(samples["two-minutes"].audio().samples, 12)
    data = encode(long, container="flac", codec="flac", rate=16_000)
    before = server.counter("stt_inference_audio_seconds_total")
    with httpx.stream(
        "POST", f"{server.openai_url}/audio/transcriptions", data={"model": "whisper-1", "stream": "true"},
        files={"file": data}, timeout=60,
    ) as response:  # fmt: skip
        next(response.iter_lines())
    time.sleep(3)  # batches that had begun are done
    after = server.counters()
    time.sleep(1)
    assert server.counter("stt_inference_audio_seconds_total") == after["stt_inference_audio_seconds_total"]
    assert after["stt_inference_audio_seconds_total"] - before < 0.8 * len(long) / SAMPLE_RATE
    assert after["stt_queue_audio_seconds"] == 0


class TestKeywords:
    def test_they_are_taken_as_the_client_sends_them(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        answer = client.audio.transcriptions.create(
            file=samples["short"].path, model="gpt-transcribe", keywords=["Zanzibar", "tram"], languages=["en"]
        )
        assert answer.text == samples["short"].text

    def test_a_prompt_without_names_makes_no_difference(self, http: httpx.Client, samples: dict[str, Sample]) -> None:
        plain = ask(http, samples["two-sentences"].path).json()
        assert ask(http, samples["two-sentences"].path, prompt="A talk about dinner.").json() == plain


class TestDescription:
    def test_the_document_names_every_field_and_the_page_needs_no_other_server(self, server: Server) -> None:
        document = httpx.get(f"{server.url}/openapi.json").json()
        body = document["paths"]["/v1/audio/transcriptions"]["post"]["requestBody"]["content"]["multipart/form-data"]
        assert {"file", "model", "keywords[]", "stream", "chunking_strategy"} <= set(body["schema"]["properties"])
        page = httpx.get(f"{server.url}/docs")
        assert page.status_code == 200
        assert "http://" not in page.text
        assert "https://" not in page.text
        parts = re.findall(r'(?:src|href)="(/[^"]+)"', page.text)
        assert len(parts) == 2
        for part in parts:
            assert httpx.get(server.url + part).status_code == 200


def test_invented_requests_are_answered_as_the_document_says(server: Server) -> None:
    """A short run; `scripts/release/fuzz.py` is the long one."""
    assert fuzz.run(server.url, examples=5, seed=11) > 75


class TestAccess:
    PATHS = ("/docs", "/status", "/docs.json", "/schema.json", "/openapi.json", "/debug/cfg", "/v1/models", "/nothing")

    def test_keys_guard_everything_but_health_and_what_is_opened(self, guarded: Server) -> None:
        for path in self.PATHS:
            refused = httpx.get(guarded.url + path)
            assert refused.status_code == 401, path
            contract.check(refused.json(), contract.ERROR)
        for path in ("/healthz", "/livez", "/readyz", "/metrics", "/", "/page/main.js"):
            assert httpx.get(guarded.url + path).status_code == 200, path
        assert httpx.post(f"{guarded.url}/bentoml/transcribe", files={"audio": b"x"}).status_code == 401

    @pytest.mark.parametrize(
        ("header", "status"),
        [
            ("Bearer first-key", 200), ("bearer file-key", 200), ("Bearer first-key2", 401), ("Basic first-key", 401),
            ("Bearer", 401), ("Bearer \xe9", 401), ("Bearer cl\xc3\xa9", 200),
        ],
    )  # fmt: skip
    def test_any_key_opens_and_nothing_else(self, guarded: Server, header: str, status: int) -> None:
        headers = {b"authorization": header.encode("latin-1")}
        assert httpx.get(f"{guarded.openai_url}/models", headers=headers).status_code == status

    def test_pages_of_the_origins_that_are_set_may_call(self, guarded: Server) -> None:
        asked = {"origin": "https://app.example", "access-control-request-method": "POST",
                 "access-control-request-headers": "authorization"}  # fmt: skip
        preflight = httpx.options(f"{guarded.openai_url}/audio/transcriptions", headers=asked)
        assert preflight.status_code == 200
        assert preflight.headers["access-control-allow-origin"] == "https://app.example"
        refused = httpx.get(f"{guarded.openai_url}/models", headers={"origin": "https://app.example"})
        assert refused.headers["access-control-allow-origin"] == "https://app.example"
        other = httpx.get(f"{guarded.openai_url}/models", headers={"origin": "https://other.example"})
        assert "access-control-allow-origin" not in other.headers


def test_concurrent_streams_each_get_their_own_text(server: Server, samples: dict[str, Sample]) -> None:
    names = ("short", "two-sentences")

    async def main() -> list[tuple[str, str]]:
        async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="none") as client:

            async def one(name: str) -> tuple[str, str]:
                stream = await client.audio.transcriptions.create(
                    file=(name, io.BytesIO(samples[name].path.read_bytes())), model="whisper-1", stream=True
                )
                return name, "".join([getattr(event, "delta", "") async for event in stream])

            return await asyncio.gather(*(one(name) for name in itertools.islice(itertools.cycle(names), 16)))

    for name, text in asyncio.run(main()):
        assert text == samples[name].text
