"""The real service on a real port, through the official client, as a user meets it."""

from __future__ import annotations

import io
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import httpx
import numpy as np
import openai
import pytest
import srt
import webvtt

from parakeet_stt.audio import SAMPLE_RATE
from tests.conftest import Sample, Server, encode, without_case_or_punctuation


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.openai_url, api_key="none", max_retries=0, timeout=120)


def error_of(response: httpx.Response) -> dict[str, Any]:
    body = response.json()
    assert set(body) == {"error"}
    assert set(body["error"]) == {"message", "type", "param", "code"}
    error: dict[str, Any] = body["error"]
    return error


def post(server: Server, data: bytes | None, name: str = "speech.wav", **fields: Any) -> httpx.Response:
    files = {} if data is None else {"file": (name, data)}
    return httpx.post(
        f"{server.openai_url}/audio/transcriptions", data={"model": "whisper-1", **fields}, files=files, timeout=120
    )


class TestTranscriptions:
    def test_json_is_the_text_of_the_sample(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        for name in ("short", "two-sentences"):
            answer = client.audio.transcriptions.create(file=samples[name].path, model="whisper-1")
            assert answer.text == samples[name].text

    def test_text_is_bare(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        answer = client.audio.transcriptions.create(
            file=samples["short"].path, model="parakeet-tdt-tiny", response_format="text"
        )
        assert answer == samples["short"].text + "\n"

    def test_verbose_json_has_words_and_segments_with_their_times(
        self, client: openai.OpenAI, samples: dict[str, Sample]
    ) -> None:
        sample = samples["two-sentences"]
        answer = client.audio.transcriptions.create(
            file=sample.path, model="whisper-1", response_format="verbose_json",
            timestamp_granularities=["word", "segment"],
        )  # fmt: skip
        assert (answer.text, answer.language) == (sample.text, "english")
        assert answer.duration == pytest.approx(sample.seconds, abs=0.01)
        assert answer.words is not None
        assert answer.segments is not None
        assert " ".join(word.word for word in answer.words) == sample.text
        assert " ".join(segment.text for segment in answer.segments) == sample.text
        assert len(answer.segments) == len(re.findall(r"[.?]", sample.text))
        for segment in answer.segments:
            assert segment.avg_logprob < 0
            assert 0 <= segment.no_speech_prob < 0.5
            assert segment.tokens

    @pytest.mark.parametrize(
        ("granularities", "present", "absent"),
        [(["word"], "words", "segments"), (["segment"], "segments", "words"), (None, "segments", "words")],
    )
    def test_only_the_granularities_asked_for_are_there(
        self, server: Server, samples: dict[str, Sample], granularities: list[str] | None, present: str, absent: str
    ) -> None:
        fields: dict[str, Any] = {} if granularities is None else {"timestamp_granularities[]": granularities}
        body = post(server, samples["short"].path.read_bytes(), response_format="verbose_json", **fields).json()
        assert body[present]
        assert absent not in body

    @pytest.mark.parametrize("granularities", [["word"], ["segment"], ["word", "segment"], None])
    def test_events_have_the_times_that_the_same_answer_without_a_stream_has(
        self, server: Server, samples: dict[str, Sample], granularities: list[str] | None
    ) -> None:
        data = samples["two-sentences"].path.read_bytes()
        fields: dict[str, Any] = {"response_format": "verbose_json"}
        if granularities:
            fields["timestamp_granularities[]"] = granularities
        whole = post(server, data, **fields).json()
        lines = post(server, data, stream="true", model="gpt-4o-transcribe", **fields).text.split("\n\n")
        *deltas, done = [json.loads(line.removeprefix("data: ")) for line in lines if line]
        for name in ("text", "language", "duration", "words", "segments"):
            assert done.get(name) == whole.get(name), name
        words = [word for delta in deltas for word in delta.get("words", ())]
        assert words == whole.get("words", [])

    def test_srt_and_vtt_are_read_by_strict_parsers(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        sample = samples["two-sentences"]
        subtitles = client.audio.transcriptions.create(file=sample.path, model="whisper-1", response_format="srt")
        cues = list(srt.parse(str(subtitles), ignore_errors=False))
        assert " ".join(cue.content for cue in cues) == sample.text
        web = client.audio.transcriptions.create(file=sample.path, model="whisper-1", response_format="vtt")
        captions = webvtt.from_buffer(io.StringIO(str(web))).captions
        assert " ".join(caption.text for caption in captions) == sample.text

    def test_logprobs_are_the_models_own(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        answer = client.audio.transcriptions.create(file=samples["short"].path, model="whisper-1", include=["logprobs"])
        assert answer.logprobs
        assert "".join(entry.token or "" for entry in answer.logprobs) == answer.text
        assert all(entry.logprob is not None and entry.logprob <= 0 for entry in answer.logprobs)

    def test_arrays_are_read_with_and_without_brackets(self, server: Server, samples: dict[str, Sample]) -> None:
        data = samples["short"].path.read_bytes()
        bare = post(server, data, response_format="verbose_json", timestamp_granularities="word")
        assert "words" in bare.json()

    def test_silence_and_noise_are_empty_texts(self, server: Server) -> None:
        noise = np.random.default_rng(1).standard_normal(SAMPLE_RATE * 5).astype(np.float32) * np.float32(0.05)
        for sound in (np.zeros(SAMPLE_RATE * 5, np.float32), noise):
            data = encode(sound, container="wav", codec="pcm_s16le", rate=16_000)
            assert post(server, data).json()["text"] == ""


class TestFormats:
    CODECS = (
        ("wav", "wav", "pcm_s16le", (8000, 16000, 44100, 48000), ("mono", "stereo", "5.1")),
        ("flac", "flac", "flac", (8000, 16000, 44100, 48000), ("mono", "stereo", "5.1")),
        ("mp3", "mp3", "libmp3lame", (8000, 16000, 44100, 48000), ("mono", "stereo")),
        ("m4a", "ipod", "aac", (8000, 16000, 44100, 48000), ("mono", "stereo", "5.1")),
        ("ogg", "ogg", "vorbis", (44100, 48000), ("stereo",)),  # all that FFmpeg's own Vorbis encoder writes
        ("opus", "ogg", "libopus", (8000, 16000, 48000), ("mono", "stereo", "5.1")),
        ("webm", "webm", "libopus", (8000, 16000, 48000), ("mono", "stereo", "5.1")),
    )

    def test_one_recording_in_every_format_rate_and_layout_is_one_text(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        sample = samples["two-sentences"]
        sound = sample.audio().samples
        wrong = {}
        count = 0
        for ending, container, codec, rates, layouts in self.CODECS:
            for rate in rates:
                for layout in layouts:
                    data = encode(sound, container=container, codec=codec, rate=rate, layout=layout)
                    response = post(server, data, name=f"speech.{ending}")
                    assert response.status_code == 200, (ending, rate, layout, response.text)
                    count += 1
                    if response.json()["text"] != sample.text:
                        wrong[ending, rate, layout] = response.json()["text"]
        assert count == 64
        assert len(wrong) / count <= 0.05, wrong


class TestLongAudio:
    def test_two_minutes_are_complete_in_order_and_in_time(
        self, client: openai.OpenAI, samples: dict[str, Sample]
    ) -> None:
        sample = samples["two-minutes"]
        assert sample.seconds > 120
        answer = client.audio.transcriptions.create(
            file=sample.path, model="whisper-1", response_format="verbose_json", timestamp_granularities=["word"]
        )
        assert answer.words is not None
        found, said = without_case_or_punctuation(answer.text), without_case_or_punctuation(sample.text)
        assert edit_distance(found, said) / len(said) <= 0.02
        edge = 0.0
        for word in answer.words:
            assert edge <= word.start <= word.end <= answer.duration
            edge = word.end
        last = sample.words[-1]
        assert without_case_or_punctuation(answer.words[-1].word) == without_case_or_punctuation(last["word"])
        assert answer.words[-1].start == pytest.approx(last["start"], abs=0.2)
        assert answer.words[-1].end == pytest.approx(last["end"], abs=0.2)


def edit_distance(one: list[str], other: list[str]) -> int:
    import kaldialign

    distance: int = kaldialign.edit_distance(one, other)["total"]
    return distance


class TestManyCallers:
    @pytest.mark.alone
    def test_sixteen_callers_get_their_own_text_and_health_stays_prompt(
        self, server: Server, samples: dict[str, Sample]
    ) -> None:
        long = samples["two-minutes"].audio().samples
        parts = [long[i * 8 * SAMPLE_RATE : (i + 1) * 8 * SAMPLE_RATE] for i in range(16)]
        files = [encode(part, container="wav", codec="pcm_s16le", rate=16_000) for part in parts]
        alone = [post(server, data).json()["text"] for data in files]
        assert len(set(alone)) == 16
        delays: list[float] = []
        statuses: set[int] = set()
        done = threading.Event()

        def watch() -> None:
            with httpx.Client() as http:
                while not done.is_set():
                    asked = time.perf_counter()
                    statuses.add(http.get(f"{server.url}/healthz").status_code)
                    delays.append(time.perf_counter() - asked)
                    time.sleep(0.005)

        watcher = threading.Thread(target=watch)
        watcher.start()
        with ThreadPoolExecutor(16) as callers:
            for _ in range(3):
                assert [r.json()["text"] for r in callers.map(lambda data: post(server, data), files)] == alone
        done.set()
        watcher.join()
        assert statuses == {200}
        assert len(delays) > 50
        assert float(np.percentile(delays, 99)) < 0.1


class TestErrors:
    @pytest.mark.parametrize(
        ("fields", "param", "says"),
        [
            ({"response_format": "xml"}, "response_format", "'xml'"),
            ({"response_format": "diarized_json"}, "response_format", "speaker"),
            ({"timestamp_granularities[]": "word"}, "timestamp_granularities", "verbose_json"),
            (
                {"response_format": "verbose_json", "timestamp_granularities[]": "char"},
                "timestamp_granularities",
                "char",
            ),
            ({"include[]": "logprobs", "response_format": "text"}, "include", "json"),
            ({"language": "fr"}, "language", "'fr'"),
            ({"temperature": "2"}, "temperature", "'2'"),
            ({"temperature": "warm"}, "temperature", "'warm'"),
            ({"stream": "true", "response_format": "srt", "model": "gpt-transcribe"}, "stream", "srt"),
            ({"stream": "perhaps"}, "stream", "'perhaps'"),
            ({"keywords[]": ["x"] * 101}, "keywords", "101"),
            ({"keywords": "x" * 101}, "keywords", "100 characters"),
            ({"languages": '["ja", "fr"]'}, "languages", "'fr'"),
            ({"keywords[]": ["Anna", "C++"]}, "keywords", "'C++'"),
            ({"chunking_strategy[type]": "client_vad"}, "chunking_strategy.type", "server_vad"),
            ({"chunking_strategy": '{"type": "server_vad", "threshold": 2}'}, "chunking_strategy.threshold", "less"),
            ({"chunking_strategy": "never"}, "chunking_strategy", "'never'"),
            ({"known_speaker_names[]": "Ann"}, "known_speaker_names", "needs a reference"),
            ({"speakers": "true"}, "speakers", "STT_DIARIZER"),
            ({"languge": "en"}, "languge", "no such field"),
        ],
    )
    def test_a_field_that_is_not_honoured_is_refused_by_name(
        self, server: Server, samples: dict[str, Sample], fields: dict[str, str], param: str, says: str
    ) -> None:
        response = post(server, samples["short"].path.read_bytes(), **fields)
        assert response.status_code == 400
        error = error_of(response)
        assert error["param"] == param
        assert says in error["message"]

    @pytest.mark.parametrize(
        ("data", "code"),
        [
            (b"", "invalid_audio"),
            (b"x", "invalid_audio"),
            (b"this is no sound " * 1000, "invalid_audio"),
            (encode(np.zeros(1584, np.float32), container="wav", codec="pcm_s16le", rate=16_000), "audio_too_short"),
            (encode(np.zeros(0, np.float32), container="wav", codec="pcm_s16le", rate=16_000), "invalid_audio"),
            (b"#EXTM3U\n#EXTINF:10,\nfile:///etc/passwd\n", "invalid_audio"),
        ],
        ids=["empty", "one byte", "text", "99 ms", "no samples", "playlist"],
    )
    def test_sound_that_cannot_be_used_is_a_400(self, server: Server, data: bytes, code: str) -> None:
        response = post(server, data)
        assert response.status_code == 400
        error = error_of(response)
        assert (error["param"], error["code"]) == ("file", code)

    def test_a_flag_is_true_or_false(self, server: Server) -> None:
        response = httpx.post(f"{server.url}/transcribe", files={"file": b"x"}, data={"should_chunk": "perhaps"})
        assert response.status_code == 400
        assert error_of(response)["param"] == "should_chunk"

    def test_missing_fields_are_named(self, server: Server) -> None:
        assert error_of(post(server, None))["param"] == "file"
        assert error_of(post(server, b"x", model=""))["param"] == "model"
        assert error_of(httpx.post(f"{server.url}/transcribe"))["param"] == "file"

    def test_another_model_than_the_served_is_a_404(self, client: openai.OpenAI, samples: dict[str, Sample]) -> None:
        with pytest.raises(openai.NotFoundError) as refusal:
            client.audio.transcriptions.create(file=samples["short"].path, model="nvidia/parakeet-tdt-0.6b-v2")
        assert refusal.value.code == "model_not_found"

    def test_unknown_paths_and_methods_come_in_the_envelope(self, server: Server) -> None:
        for path in ("/v1/nothing", "/nothing", "/v1/models/nothing"):
            response = httpx.get(server.url + path)
            assert response.status_code == 404
            error_of(response)
        response = httpx.get(f"{server.openai_url}/audio/transcriptions")
        assert (response.status_code, response.headers["allow"]) == (405, "POST")
        error_of(response)


class TestModelsAndHealth:
    def test_the_served_model_is_listed_and_found_by_name(self, client: openai.OpenAI) -> None:
        (listed,) = client.models.list().data
        assert listed.id == "parakeet-tdt-tiny"
        assert client.models.retrieve(listed.id) == listed

    def test_the_model_is_found_by_every_name_that_requests_may_say(
        self, exposed: Server, samples: dict[str, Sample]
    ) -> None:
        with openai.OpenAI(base_url=exposed.openai_url, api_key="none", max_retries=0) as client:
            for name in ("whisper-1", "Systran/faster-whisper-small"):
                assert client.models.retrieve(name).id == name
                said = client.audio.transcriptions.create(file=samples["short"].path, model=name)
                assert said.text == samples["short"].text
            with pytest.raises(openai.NotFoundError):
                client.models.retrieve("whisper-2")

    def test_a_field_that_nobody_knows_is_ignored_where_the_operator_says_so(
        self, exposed: Server, samples: dict[str, Sample]
    ) -> None:
        answer = post(exposed, samples["short"].path.read_bytes(), speed="fast")
        assert answer.json()["text"] == samples["short"].text
        (line,) = [line for line in exposed.log.read_text().splitlines() if "the field 'speed'" in line]
        warned = json.loads(line)
        assert (warned["level"], warned["request_id"]) == ("warning", answer.headers["x-request-id"])
        assert warned["message"].endswith("is not known, and was ignored")

    def test_health_names_what_is_served(self, server: Server) -> None:
        body = httpx.get(f"{server.url}/healthz").json()
        assert body["status"] == "ok"
        assert (body["model"], body["demo"], body["precision"]) == ("parakeet-tdt-tiny", True, "float32")
        assert body["precision_reason"] == "networks under 100 million parameters have it"
        assert f"in float32: {body['precision_reason']}\n" in server.log.read_text()
        assert httpx.get(f"{server.url}/readyz").status_code == 200

    def test_the_log_says_that_the_tiny_model_is_not_parakeet(self, server: Server) -> None:
        assert "THIS IS NOT PARAKEET" in server.log.read_text()

    def test_the_active_configuration_is_shown(self, server: Server) -> None:
        response = httpx.get(f"{server.url}/debug/cfg")
        assert "AudioToMelSpectrogramPreprocessor" in response.text
        assert "max_symbols: 10" in response.text


class TestOldWrapper:
    def test_transcribe_with_its_defaults(self, server: Server, samples: dict[str, Sample]) -> None:
        files = {"file": samples["short"].path.read_bytes()}
        response = httpx.post(f"{server.url}/transcribe", files=files, timeout=120)
        assert response.json() == {"text": samples["short"].text, "timestamps": None}

    def test_transcribe_with_nemos_timestamps(self, server: Server, samples: dict[str, Sample]) -> None:
        sample = samples["two-sentences"]
        response = httpx.post(
            f"{server.url}/transcribe", files={"file": sample.path.read_bytes()}, timeout=120,
            data={"include_timestamps": "true", "should_chunk": "false"},
        )  # fmt: skip
        stamps = response.json()["timestamps"]
        assert set(stamps) == {"word", "segment", "char"}
        for kind, entries in stamps.items():
            assert all(set(e) == {kind, "start_offset", "end_offset", "start", "end"} for e in entries)
        assert " ".join(entry["word"] for entry in stamps["word"]) == sample.text


class TestAccess:
    def test_a_key_is_asked_for_and_any_of_them_opens(self, guarded: Server) -> None:
        for key in ("first-key", "second-key"):
            assert openai.OpenAI(base_url=guarded.openai_url, api_key=key).models.list().data
        with pytest.raises(openai.AuthenticationError) as refusal:
            openai.OpenAI(base_url=guarded.openai_url, api_key="wrong").models.list()
        assert refusal.value.code == "invalid_api_key"
        assert httpx.get(f"{guarded.url}/debug/cfg").status_code == 401
        assert httpx.post(f"{guarded.url}/transcribe", files={"file": b"x"}).status_code == 401
        assert httpx.get(f"{guarded.url}/healthz").status_code == 200

    def test_limits_of_bytes_and_seconds_are_named(self, guarded: Server, samples: dict[str, Sample]) -> None:
        client = openai.OpenAI(base_url=guarded.openai_url, api_key="first-key", max_retries=0)
        with pytest.raises(openai.BadRequestError, match="20 seconds"):
            client.audio.transcriptions.create(file=samples["two-minutes"].path, model="whisper-1")
        with pytest.raises(openai.APIStatusError, match="3000000 bytes") as refusal:
            client.audio.transcriptions.create(file=("big.wav", bytes(3_000_001)), model="whisper-1")
        assert refusal.value.status_code == 413
        wrapper = httpx.post(
            f"{guarded.url}/transcribe", files={"file": bytes(3_000_001)}, headers={"authorization": "Bearer first-key"}
        )
        assert wrapper.status_code == 413

        def unannounced() -> Iterator[bytes]:
            yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="big.wav"\r\n\r\n'
            for _ in range(31):
                yield bytes(100_000)
            yield b"\r\n--x--\r\n"

        headers = {"authorization": "Bearer first-key", "content-type": "multipart/form-data; boundary=x"}
        for path in ("/transcribe", "/v1/audio/transcriptions"):
            chunked = httpx.post(guarded.url + path, content=unannounced(), headers=headers)
            assert chunked.status_code == 413
            error_of(chunked)
        error_of(wrapper)
