"""Form fields where no server is needed to see what becomes of them."""

from __future__ import annotations

import dataclasses
import io

import pytest
from starlette.datastructures import FormData, UploadFile

from parakeet_stt.errors import InvalidField, RequestError, UnsupportedField
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.server.files import form as openai_form
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.options import MAX_KEYWORDS, check_realtime_model
from tests.parts import SERVED

EUROPEAN = dataclasses.replace(SERVED, name="v3", languages=("en", "de", "fr"))


def form(*fields: tuple[str, str | UploadFile]) -> FormData:
    return FormData([("file", UploadFile(io.BytesIO(b"x"))), ("model", "whisper-1"), *fields])


def parsed(*fields: tuple[str, str | UploadFile]) -> openai_form.TranscriptionRequest:
    return openai_form.parse_transcription(form(*fields), EUROPEAN)


def test_a_model_of_several_languages_translates_none() -> None:
    with pytest.raises(UnsupportedField, match="3 languages") as refusal:
        openai_form.parse_translation(form(), EUROPEAN)
    assert refusal.value.param == "model"
    assert openai_form.parse_translation(form(), SERVED).options.language == "en"


def test_the_language_is_one_of_the_models_in_any_case() -> None:
    assert parsed().options.language is None
    assert parsed(("language", "DE")).options.language == "de"
    assert parsed(("languages[]", "fr"), ("languages[]", "en")).options.language == "fr"


@pytest.mark.parametrize(("tag", "language"), [("en-US", "en"), ("de_AT", "de"), ("FR-fr", "fr")])
def test_a_language_with_a_region_is_that_language(tag: str, language: str) -> None:
    assert parsed(("language", tag)).options.language == language
    assert parsed(("languages[]", tag)).options.language == language
    with pytest.raises(UnsupportedField, match="'es-MX'"):
        parsed(("language", "es-MX"))


SPEAKING = dataclasses.replace(SERVED, tells_speakers=True)


def speakers_of(model: ServedModel, *fields: tuple[str, str]) -> bool:
    return openai_form.parse_transcription(form(*fields), model).options.speakers


def test_openais_model_for_speakers_asks_for_them_where_they_can_be_shown() -> None:
    named = ("model", "gpt-4o-transcribe-diarize")

    def asked(model: ServedModel, *fields: tuple[str, str]) -> bool:
        data = FormData([("file", UploadFile(io.BytesIO(b"x"))), named, *fields])
        return openai_form.parse_transcription(data, model).options.speakers

    shown = {
        name: asked(SPEAKING, ("response_format", name)) for name in ("json", "text", "srt", "vtt", "verbose_json")
    }
    assert shown == {"json": False, "text": False, "srt": True, "vtt": True, "verbose_json": True}
    assert not asked(SERVED, ("response_format", "srt"))
    assert not asked(SPEAKING, ("response_format", "srt"), ("speakers", "false"))


def test_speakers_are_told_where_they_are_asked_for() -> None:
    assert speakers_of(SPEAKING, ("response_format", "diarized_json"))
    assert speakers_of(SPEAKING, ("response_format", "vtt"), ("speakers", "true"))
    assert not speakers_of(SPEAKING, ("response_format", "vtt"))
    with pytest.raises(UnsupportedField, match="STT_DIARIZER"):
        speakers_of(SERVED, ("response_format", "diarized_json"))


def test_a_prompts_names_take_the_places_that_keywords_leave() -> None:
    keywords = [("keywords[]", f"word {number}") for number in range(99)]
    wanted = parsed(*keywords, ("prompt", "We met Anna and Bert and Carl")).options.phrases
    assert len(wanted) == MAX_KEYWORDS
    assert "Anna" in wanted
    assert "Bert" not in wanted


def test_a_chunking_strategy_becomes_rules() -> None:
    strategy = '{"type": "server_vad", "threshold": 0.7, "silence_duration_ms": 400, "prefix_padding_ms": 100}'
    expected = SpeechRules(onset=0.7, offset=pytest.approx(0.55), min_silence_ms=400, pad_ms=100)  # type: ignore[arg-type]
    assert parsed(("chunking_strategy", strategy)).options.rules == expected
    assert parsed(("chunking_strategy", "auto")).options.rules is None


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ([("language", "en"), ("language", "de")], "language"),
        ([("language[0]", "en")], "language"),
        ([("include[logprobs]", "1")], "include"),
        ([("include", '["logprobs", 3]')], "include"),
        ([("prompt", UploadFile(io.BytesIO(b"x")))], "prompt"),
        ([("file", UploadFile(io.BytesIO(b"x")))], "file"),
        ([("chunking_strategy[type]", "server_vad"), ("chunking_strategy[speed]", "1")], "chunking_strategy.speed"),
        ([("chunking_strategy", "[" * 100_000)], "chunking_strategy"),
        ([("temperature", "nan")], "temperature"),
    ],
)
def test_what_is_spelled_wrongly_is_refused_by_name(fields: list[tuple[str, str | UploadFile]], param: str) -> None:
    with pytest.raises(RequestError) as refusal:
        parsed(*fields)
    assert refusal.value.param == param
    assert len(refusal.value.message) < 1000


def test_values_that_are_empty_count_as_left_out() -> None:
    empty = [(name, "") for name in ("language", "prompt", "temperature", "stream", "include[]", "chunking_strategy")]
    assert parsed(*empty).options == parsed().options
    with pytest.raises(InvalidField):
        parsed(("stream", "maybe"))


def test_sockets_refuse_the_model_for_speakers_by_name() -> None:
    with pytest.raises(UnsupportedField, match=r"gpt-4o-transcribe-diarize.*sockets") as refusal:
        check_realtime_model("gpt-4o-transcribe-diarize", "test", param="session.audio.input.transcription.model")
    assert refusal.value.param == "session.audio.input.transcription.model"
    check_realtime_model("gpt-4o-transcribe", "test")
