"""The contract as real clients use it: OpenAI's, others that speak its API, and BentoML's."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import bentoml
import httpx
import kaldialign
import numpy as np
import openai
import pytest

from parakeet_stt.audio import SAMPLE_RATE
from tests import contract
from tests.conftest import Sample, Server, encode, without_case_or_punctuation


class TestOfficialClient:
    def test_streaming(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        sample = samples["two-minutes"]
        stream = client.audio.transcriptions.create(
            file=sample.path, model="gpt-4o-transcribe", stream=True, include=["logprobs"]
        )
        deltas, done = [], None
        for event in stream:
            if event.type == "transcript.text.delta":
                deltas.append(event.delta)
            elif event.type == "transcript.text.done":
                done = event
        assert len(deltas) > 3
        assert done is not None
        assert done.text == "".join(deltas)
        said, found = without_case_or_punctuation(sample.text), without_case_or_punctuation(done.text)
        assert kaldialign.edit_distance(said, found)["total"] <= 0.04 * len(said)
        assert done.usage is not None
        assert done.usage.input_tokens == math.ceil(sample.seconds / 0.08)

    def test_silence_streams_as_an_empty_text(self, client: openai.OpenAI) -> None:
        silence = encode(np.zeros(SAMPLE_RATE, np.float32), container="wav", codec="pcm_s16le", rate=16_000)
        stream = client.audio.transcriptions.create(file=("a.wav", silence), model="whisper-1", stream=True)
        (done,) = stream
        assert (done.type, getattr(done, "text", None)) == ("transcript.text.done", "")

    def test_async(self, server: Server, samples: dict[str, Sample]) -> None:
        async def main() -> tuple[str, str, str]:
            async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="none") as client:
                plain = await client.audio.transcriptions.create(file=samples["short"].path, model="whisper-1")
                stream = await client.audio.transcriptions.create(
                    file=samples["short"].path, model="whisper-1", stream=True
                )
                events = [event async for event in stream]
                translation = await client.audio.translations.create(file=samples["short"].path, model="whisper-1")
                return plain.text, getattr(events[-1], "text", ""), translation.text

        assert asyncio.run(main()) == (samples["short"].text,) * 3

    def test_chunking_strategy_and_languages_as_the_client_writes_them(
        self, client: openai.OpenAI, samples: dict[str, Sample]
    ) -> None:
        answer = client.audio.transcriptions.create(
            file=samples["short"].path, model="gpt-4o-transcribe", language="en", temperature=0.2, prompt="Dinner.",
            chunking_strategy={"type": "server_vad", "prefix_padding_ms": 200, "threshold": 0.5},
        )  # fmt: skip
        assert answer.text == samples["short"].text

    @pytest.mark.parametrize("response_format", ["json", "text", "srt", "verbose_json", "vtt"])
    def test_translations(self, http: httpx.Client, samples: dict[str, Sample], response_format: str) -> None:
        response = http.post(
            "/audio/translations",
            data={"model": "whisper-1", "response_format": response_format},
            files={"file": samples["short"].path.read_bytes()},
        )
        assert response.status_code == 200
        if response_format == "json":
            contract.check(response.json(), contract.TRANSLATION)
        if response_format == "verbose_json":
            contract.check(response.json(), contract.VERBOSE_TRANSLATION)
        assert samples["short"].text in response.text

    def test_a_translation_has_no_other_fields(self, http: httpx.Client, samples: dict[str, Sample]) -> None:
        response = http.post(
            "/audio/translations",
            data={"model": "whisper-1", "stream": "true"},
            files={"file": samples["short"].path.read_bytes()},
        )
        assert (response.status_code, response.json()["error"]["param"]) == (400, "stream")

    def test_models(self, http: httpx.Client) -> None:
        models = http.get("/models").json()
        contract.check(models, contract.MODELS)
        contract.check(http.get(f"/models/{models['data'][0]['id']}").json(), contract.MODEL)

    def test_every_refusal_is_the_right_exception_with_its_param_and_code(
        self, client: openai.OpenAI, samples: dict[str, Sample]
    ) -> None:
        file = samples["short"].path
        with pytest.raises(openai.BadRequestError) as bad:
            client.audio.transcriptions.create(file=file, model="whisper-1", language="fr")
        assert (bad.value.param, bad.value.code) == ("language", "unsupported_value")
        with pytest.raises(openai.NotFoundError) as unknown:
            client.audio.transcriptions.create(file=file, model="gpt-5")
        assert (unknown.value.param, unknown.value.code) == ("model", "model_not_found")
        with pytest.raises(openai.NotFoundError) as no_route:
            client.embeddings.create(model="whisper-1", input="a")
        assert no_route.value.code == "not_found"
        with pytest.raises(openai.BadRequestError) as silent:
            client.audio.transcriptions.create(file=("a.wav", b"no sound"), model="whisper-1", stream=True)
        assert (silent.value.param, silent.value.code) == ("file", "invalid_audio")
        assert silent.value.request_id is not None


class TestOtherClients:
    """The shapes in which public clients call; what they read of the answer."""

    def test_open_webui_sends_webm_and_reads_text(self, http: httpx.Client, samples: dict[str, Sample]) -> None:
        sound = encode(samples["two-sentences"].audio().samples, container="webm", codec="libopus", rate=48_000)
        response = http.post(
            "/audio/transcriptions",
            headers={"Authorization": "Bearer sk-anything"},
            data={"model": "whisper-1", "language": "en"},
            files={"file": ("recording.webm", sound, "audio/webm;codecs=opus")},
        )
        assert response.json()["text"] == samples["two-sentences"].text

    def test_open_webui_reads_the_message_of_an_error(self, http: httpx.Client) -> None:
        response = http.post(
            "/audio/transcriptions",
            data={"model": "whisper-1"},
            files={"file": ("recording.webm", b"\x1a\x45\xdf\xa3")},
        )
        assert response.status_code == 400
        assert "could not be decoded" in response.json()["error"]["message"]

    def test_livekit_sends_wav_in_memory_with_a_prompt_and_a_verbose_format(
        self, client: openai.OpenAI, samples: dict[str, Sample]
    ) -> None:
        wav = encode(samples["short"].audio().samples, container="wav", codec="pcm_s16le", rate=24_000)
        answer = client.audio.transcriptions.create(
            file=("file.wav", wav, "audio/wav"), model="gpt-4o-mini-transcribe", language="en", prompt="",
            response_format="json", timeout=openai.Timeout(30, connect=10),
        )  # fmt: skip
        assert answer.text == samples["short"].text

    def test_pipecat_sends_wav_with_a_temperature_and_reads_text(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        wav = encode(samples["short"].audio().samples, container="wav", codec="pcm_s16le", rate=16_000)

        async def main() -> str:
            async with openai.AsyncOpenAI(base_url=server.openai_url, api_key="none") as client:
                answer = await client.audio.transcriptions.create(
                    file=("audio.wav", wav, "audio/wav"), model="whisper-1", language="en", temperature=0.0,
                    include=["logprobs"], response_format="json",
                )  # fmt: skip
                return answer.text

        assert asyncio.run(main()) == samples["short"].text


class TestBentoML:
    def test_its_own_client_is_answered_by_the_same_model(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["two-sentences"]
        with bentoml.SyncHTTPClient(server.url) as client:
            found = client.transcribe(audio=sample.path, language="en", keywords=["tram"])
        contract.check(found, contract.VERBOSE_BOTH)
        assert found["text"] == sample.text

        async def main() -> Any:
            async with bentoml.AsyncHTTPClient(server.url) as client:
                return await client.transcribe(audio=sample.path)

        assert asyncio.run(main())["text"] == sample.text

    def test_what_bentoml_answers_itself_comes_in_the_envelope(self, server: Server) -> None:
        for response in (
            httpx.post(f"{server.url}/bentoml/transcribe", json={"no": "file"}),
            httpx.post(f"{server.url}/bentoml/transcribe", files={"audio": b"no sound"}),
            httpx.get(f"{server.url}/static_content/nothing.js"),
            httpx.put(f"{server.url}/schema.json"),
        ):
            assert 400 <= response.status_code < 500, response.text
            contract.check(response.json(), contract.ERROR)
            assert response.headers["x-request-id"]
