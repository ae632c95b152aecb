"""Who says it, on a real server with the bundled diarizer: formats, events, known speakers, and what is refused."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import httpx
import numpy as np
import openai
import pytest
import soundfile

from tests import contract
from tests.conftest import ROOT, Server

SAMPLES = ROOT / "models" / "sortformer-tiny" / "samples"
TALK = SAMPLES / "two-voices.flac"
TURNS: list[dict[str, Any]] = json.loads((SAMPLES / "samples.json").read_text())[TALK.name]
ONE, TWO, ABSENT = (SAMPLES / f"reference-{name}.flac" for name in ("one", "two", "absent"))


@pytest.fixture(scope="module")
def http(speaking: Server) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=speaking.openai_url, timeout=120) as client:
        yield client


def ask(http: httpx.Client, **fields: Any) -> httpx.Response:
    data = {"model": "whisper-1", **fields}
    return http.post("/audio/transcriptions", data=data, files={"file": TALK.read_bytes()})


def data_url(data: bytes, kind: str = "audio/flac") -> str:
    return f"data:{kind};base64,{base64.b64encode(data).decode()}"


def references(*known: tuple[str, Path]) -> dict[str, Any]:
    return {
        "known_speaker_names[]": [name for name, _ in known],
        "known_speaker_references[]": [data_url(path.read_bytes()) for _, path in known],
    }


def true_speaker(time: float) -> str:
    """Who speaks at that time, or nearest to it."""
    return str(min(TURNS, key=lambda turn: max(turn["start"] - time, time - turn["end"], 0))["speaker"])


def share_right(words: list[dict[str, Any]], labels: dict[str, str]) -> float:
    """Share of the words that have the label of whoever says them."""
    right = [bool(word["speaker"] == labels[true_speaker((word["start"] + word["end"]) / 2)]) for word in words]
    return sum(map(float, right)) / len(right)


def words_of(http: httpx.Client, **fields: Any) -> list[dict[str, Any]]:
    granularities = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    return list(ask(http, **granularities, **fields).json()["words"])


def test_words_have_the_speaker_who_says_them(http: httpx.Client) -> None:
    words = words_of(http, speakers="true")
    assert share_right(words, {"one": "A", "two": "B"}) >= 0.95


def test_the_text_and_the_times_are_the_same_without_speakers(http: httpx.Client) -> None:
    plain, told = words_of(http), words_of(http, speakers="true")
    assert [{key: word[key] for key in ("word", "start", "end")} for word in told] == plain
    for name in ("json", "text"):
        assert ask(http, response_format=name, speakers="true").content == ask(http, response_format=name).content


def test_diarized_json_is_as_its_schema_says_and_the_official_client_reads_it(
    http: httpx.Client, speaking: Server
) -> None:
    body = ask(http, response_format="diarized_json").json()
    contract.check(body, contract.DIARIZED)
    client = openai.OpenAI(base_url=speaking.openai_url, api_key="none", max_retries=0)
    with TALK.open("rb") as file:
        read = client.audio.transcriptions.create(
            model="gpt-4o-transcribe-diarize", file=file, response_format="diarized_json", chunking_strategy="auto"
        )
    assert [segment.speaker for segment in read.segments] == [one["speaker"] for one in body["segments"]]
    assert " ".join(segment.text for segment in read.segments) == read.text == body["text"]
    assert {segment.speaker for segment in read.segments} == {"A", "B"}


def test_events_are_segments_as_they_become_final_and_then_the_end(speaking: Server) -> None:
    client = openai.OpenAI(base_url=speaking.openai_url, api_key="none", max_retries=0)
    with TALK.open("rb") as file:
        events = list(
            client.audio.transcriptions.create(
                model="gpt-4o-transcribe-diarize", file=file, response_format="diarized_json", stream=True
            )
        )
    segments = [event.model_dump() for event in events if event.type == "transcript.text.segment"]
    deltas = [event for event in events if event.type == "transcript.text.delta"]
    for segment in segments:
        contract.check(segment, contract.DIARIZED_SEGMENT)
    assert {segment["speaker"] for segment in segments} == {"A", "B"}
    text = " ".join(segment["text"] for segment in segments)
    assert "".join(event.delta for event in deltas) == text  # a stream's first utterances are shorter: other cuts
    assert [event.segment_id for event in deltas] == [segment["id"] for segment in segments]
    assert events[-1].type == "transcript.text.done"
    assert events[-1].text == text


def test_the_words_of_a_segment_come_with_its_text_if_they_are_asked_for(http: httpx.Client) -> None:
    asked = {"response_format": "diarized_json", "stream": "true", "model": "gpt-4o-transcribe-diarize"}
    words = {"timestamp_granularities[]": "word", "include[]": "logprobs"}
    plain, told = (
        [json.loads(line[len("data: ") :]) for line in ask(http, **asked, **more).text.split("\n\n") if line]
        for more in (dict[str, str](), words)
    )
    for event in told:
        if event["type"] == "transcript.text.delta":
            assert " ".join(word["word"] for word in event["words"]) == event["delta"].strip()
            assert "".join(token["token"] for token in event["logprobs"]) == event["delta"]
    said = [word for event in told[:-1] for word in event.get("words", ())]
    assert [{key: word[key] for key in ("word", "start", "end")} for word in told[-1]["words"]] == said
    assert {word["speaker"] for word in told[-1]["words"]} == {"A", "B"}
    for event in told:
        for name in ("words", "logprobs", "language", "duration"):
            event.pop(name, None)
    assert told == plain


def test_openais_model_for_speakers_means_them_where_a_format_can_show_them(http: httpx.Client) -> None:
    meant = ask(http, model="gpt-4o-transcribe-diarize", response_format="srt").text
    assert meant == ask(http, response_format="srt", speakers="true").text
    assert "Speaker A: " in meant
    assert "Speaker" not in ask(http, response_format="srt").text
    assert "<v B>" in ask(http, response_format="vtt", speakers="true").text


def test_the_original_wrappers_route_and_bentomls_client_tell_speakers(speaking: Server) -> None:
    fields = {"include_timestamps": "true", "speakers": "true"}
    files = {"file": TALK.read_bytes()}
    body = httpx.post(f"{speaking.url}/transcribe", data=fields, files=files, timeout=60).json()
    with bentoml.SyncHTTPClient(speaking.url) as client:
        told = client.transcribe(audio=TALK, speakers=True)
    of_route = [segment["speaker"] for segment in body["timestamps"]["segment"]]
    assert of_route == [segment["speaker"] for segment in told["segments"]]
    assert set(of_route) == {"A", "B"}


def test_a_known_speaker_has_their_name_and_the_other_is_a(http: httpx.Client) -> None:
    words = words_of(http, speakers="true", **references(("Tom", TWO)))
    assert share_right(words, {"one": "A", "two": "Tom"}) >= 0.9
    words = words_of(http, speakers="true", **references(("Tom", TWO), ("Una", ONE)))
    assert share_right(words, {"one": "Una", "two": "Tom"}) >= 0.9


def test_somebody_who_is_not_there_names_nobody_and_changes_nothing(http: httpx.Client) -> None:
    told = words_of(http, speakers="true")
    assert words_of(http, speakers="true", **references(("Eve", ABSENT))) == told
    named = words_of(http, speakers="true", **references(("Eve", ABSENT), ("Tom", TWO), ("Una", ONE)))
    names = {"A": "Una", "B": "Tom"}
    told_by = ("speaker", "second_speaker")
    assert [{key: names[said] if key in told_by else said for key, said in word.items()} for word in told] == named


def seconds(count: float) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, np.zeros(int(count * 16_000), np.float32), 16_000, format="WAV")
    return file.getvalue()


NAMES, REFERENCES = "known_speaker_names", "known_speaker_references"
GOOD = data_url(ONE.read_bytes())


@pytest.mark.parametrize(
    ("names", "given", "param", "says"),
    [
        (["Ann"], [data_url(seconds(1.5), "audio/wav")], REFERENCES, "1.5 s"),
        (["Ann"], [data_url(seconds(12), "audio/wav")], REFERENCES, "longer"),
        (["Ann"], [data_url(b"this is no sound")], REFERENCES, "'Ann'"),
        (["Ann"], ["https://example.com/ann.wav"], REFERENCES, "data URL"),
        (["Ann"], ["data:audio/wav;base64,%%%"], REFERENCES, "data URL"),
        (["Ann"], [], NAMES, "needs a reference"),
        ([], [GOOD], REFERENCES, "needs a reference"),
        (["Ann", "Bob"], [GOOD], NAMES, "2 names and 1 references"),
        (["Ann", "Ann"], [GOOD, GOOD], NAMES, "differ"),
        ([f"{number}" for number in range(5)], [GOOD] * 5, NAMES, "at most 4"),
        (["A\nB"], [GOOD], NAMES, "printable"),
        (["x" * 101], [GOOD], NAMES, "100"),
    ],
    ids=range(12),
)
def test_a_bad_reference_is_refused_by_name(
    http: httpx.Client, names: list[str], given: list[str], param: str, says: str
) -> None:
    response = ask(http, **{f"{NAMES}[]": names, f"{REFERENCES}[]": given, "response_format": "diarized_json"})
    assert response.status_code == 400
    error = response.json()["error"]
    assert error["param"] == param
    assert says in error["message"]


def test_names_without_speakers_are_refused(http: httpx.Client) -> None:
    for fields in (dict[str, str](), {"channels": "separate", "response_format": "srt", "speakers": "true"}):
        response = ask(http, **references(("Ann", ONE)), **fields)
        assert response.status_code == 400
        assert response.json()["error"]["param"] == NAMES


def test_a_long_reference_at_a_high_rate_fits_into_the_form(http: httpx.Client) -> None:
    samples, _ = soundfile.read(ONE, dtype="float32")
    file = io.BytesIO()
    soundfile.write(file, np.repeat(np.repeat(samples, 6)[:, None], 2, 1), 96_000, format="WAV", subtype="PCM_24")
    known = {f"{NAMES}[]": "Una", f"{REFERENCES}[]": data_url(file.getvalue(), "audio/wav")}
    response = ask(http, response_format="diarized_json", **known)
    assert response.status_code == 200


def test_the_service_says_what_it_is_made_of(speaking: Server) -> None:
    digests = httpx.get(f"{speaking.url}/healthz").json()["digests"]
    assert set(digests) == {"source", "lock", "model", "diarizer"}
    assert "stt_diarized_audio_seconds_total" in httpx.get(f"{speaking.url}/metrics").text
