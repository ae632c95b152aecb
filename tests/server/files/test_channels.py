"""A recording whose speakers have a channel each, transcribed channel by channel on a real server."""

from __future__ import annotations

import io
from typing import Any

import httpx
import numpy as np
import pytest
import soundfile

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.media.demux import open_track
from tests import contract
from tests.conftest import Sample, Server, encode

TALKER = ("two-sentences", "short")  # of each channel
LATER = 2 * SAMPLE_RATE  # samples after which the second one begins


def call(samples: dict[str, Sample]) -> Samples:
    """Two people on two channels, the second beginning while the first speaks. Shape (num_samples, 2)."""
    left, right = (samples[name].audio().samples for name in TALKER)
    both = np.zeros((max(len(left), LATER + len(right)), 2), np.float32)
    both[: len(left), 0] = left
    both[LATER : LATER + len(right), 1] = right
    return both


def wav(samples: Samples, rate: int = SAMPLE_RATE) -> bytes:
    file = io.BytesIO()
    soundfile.write(file, samples, rate, format="WAV", subtype="PCM_16")
    return file.getvalue()


def ask(http: httpx.Client, data: bytes, **fields: Any) -> httpx.Response:
    return http.post("/audio/transcriptions", data={"model": "whisper-1", **fields}, files={"file": ("call.wav", data)})


def words_of(http: httpx.Client, data: bytes, **fields: Any) -> list[dict[str, Any]]:
    granularities = {"response_format": "verbose_json", "timestamp_granularities[]": ["word", "segment"]}
    body = ask(http, data, **granularities, **fields).json()
    return list(body["words"])


def test_each_word_is_on_its_side_and_none_is_lost(http: httpx.Client, samples: dict[str, Sample]) -> None:
    both = call(samples)
    apart = [words_of(http, wav(both[:, channel])) for channel in range(2)]
    together = words_of(http, wav(both), channels="separate")
    for label, expected in zip("AB", apart, strict=True):
        own = [word for word in together if word["speaker"] == label]
        assert own == [{**word, "speaker": label} for word in expected]
        assert own


def test_sentences_of_both_are_in_the_order_of_time(http: httpx.Client, samples: dict[str, Sample]) -> None:
    body = ask(http, wav(call(samples)), channels="separate", response_format="diarized_json").json()
    contract.check(body, contract.DIARIZED)
    assert [segment["speaker"] for segment in body["segments"]] == ["A", "B", "A"]
    starts = [segment["start"] for segment in body["segments"]]
    assert starts == sorted(starts)
    assert body["text"] == " ".join(segment["text"] for segment in body["segments"])
    assert body["segments"][1]["text"] == samples["short"].text


@pytest.mark.parametrize(("container", "codec"), [("flac", "flac"), ("ogg", "libopus")])
def test_channels_of_compressed_files_are_taken_apart(
    http: httpx.Client, samples: dict[str, Sample], container: str, codec: str
) -> None:
    one = encode(samples["short"].audio().samples, container=container, codec=codec, rate=48_000, layout="stereo")
    body = ask(http, one, channels="separate", response_format="diarized_json").json()
    assert [(segment["speaker"], segment["text"]) for segment in body["segments"]] == [
        ("A", samples["short"].text),
        ("B", samples["short"].text),
    ]


def test_a_channel_without_speech_adds_nothing(http: httpx.Client, samples: dict[str, Sample]) -> None:
    both = call(samples)
    both[:, 0] = 0
    body = ask(http, wav(both), channels="separate", response_format="diarized_json").json()
    assert [(segment["speaker"], segment["text"]) for segment in body["segments"]] == [("B", samples["short"].text)]


def test_a_mono_file_has_one_speaker(http: httpx.Client, samples: dict[str, Sample]) -> None:
    data = samples["two-sentences"].path.read_bytes()
    mixed, separate = (ask(http, data, response_format="srt", channels=one) for one in ("mixed", "separate"))
    assert separate.text.replace("Speaker A: ", "") == mixed.text != separate.text


def test_subtitles_say_who_speaks(http: httpx.Client, samples: dict[str, Sample]) -> None:
    data = wav(call(samples))
    assert "<v B>" + samples["short"].text in ask(http, data, channels="separate", response_format="vtt").text
    assert "Speaker B: " + samples["short"].text in ask(http, data, channels="separate", response_format="srt").text


def test_the_original_wrappers_route_takes_channels_apart(server: Server, samples: dict[str, Sample]) -> None:
    files = {"file": ("call.wav", wav(call(samples)))}
    fields = {"channels": "separate", "include_timestamps": "true"}
    body = httpx.post(f"{server.url}/transcribe", data=fields, files=files, timeout=60).json()
    assert [one["speaker"] for one in body["timestamps"]["segment"]] == ["A", "B", "A"]


@pytest.mark.parametrize(
    ("fields", "param"),
    [({"channels": "both"}, "channels"), ({"channels": "separate", "stream": "true"}, "stream")],
)
def test_what_can_not_be_is_refused_by_name(
    http: httpx.Client, samples: dict[str, Sample], fields: dict[str, str], param: str
) -> None:
    response = ask(http, samples["short"].path.read_bytes(), **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == param


def test_more_channels_than_any_call_has_are_refused(http: httpx.Client) -> None:
    response = ask(http, wav(np.zeros((SAMPLE_RATE, 9), np.float32)), channels="separate")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "channels"
    assert "9" in response.json()["error"]["message"]


def test_a_bad_file_is_refused_as_ever(http: httpx.Client) -> None:
    response = ask(http, b"no audio at all", channels="separate")
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "file"


def test_a_channel_is_decoded_as_it_is(samples: dict[str, Sample]) -> None:
    both = call(samples)
    for channel in range(3):
        track = open_track(io.BytesIO(wav(both)), max_seconds=100, channel=channel)
        found = np.concatenate(list(track.pieces))
        assert track.channels == 2
        expected = both[:, channel] if channel < 2 else np.zeros(len(both))
        np.testing.assert_allclose(found, expected, atol=2 / (1 << 15))
