"""Form fields where no server is needed to see what becomes of them."""

from __future__ import annotations

import dataclasses
import io
import logging
from typing import Any, get_args

import pytest
from openai.types.audio_model import AudioModel
from starlette.datastructures import FormData, UploadFile

from parakeet_stt.errors import InvalidField, RequestError, UnknownModel, UnsupportedField
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.server.files import form as openai_form
from parakeet_stt.server.files.foreign_fields import FOREIGN_FIELDS, Effect
from parakeet_stt.server.live.realtime_session import Configuration, configure
from parakeet_stt.server.live.ws import parse_hello
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.options import DIARIZING_MODEL, MAX_KEYWORDS
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.text.phrases import Phrases, split_script
from tests.conftest import ROOT
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
    assert parsed(("languages[]", "fr"), ("languages[]", "en")).options.language is None  # the text tells which


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


def native(*fields: tuple[str, str]) -> FormData:
    return FormData([("audio", UploadFile(io.BytesIO(b"x"))), *fields])


@pytest.mark.parametrize(("language", "script"), [("ru", "cyrillic"), ("en-GB", "latin")])
def test_a_language_asks_for_its_script_wherever_it_is_named(language: str, script: str) -> None:
    """Other scripts are then left out of the search: a model of 25 languages may write the wrong one."""
    model = dataclasses.replace(SERVED, languages=("en", "ru"))
    transcription = {"audio": {"input": {"transcription": {"language": language}}}}

    def asked(*fields: tuple[str, str]) -> list[Phrases]:
        named = dict(fields)
        return [
            openai_form.parse_transcription(form(*fields), model).options.phrases,
            openai_form.parse_native(native(*fields), model).options.phrases,
            parse_hello(named, model).to_options(0.5, model.languages).phrases,
            configure(Configuration(), transcription if named else {}, model)
            .to_options(EndpointRules(), model.languages)
            .phrases,
        ]

    assert [split_script(one) for one in asked(("language", language))] == [((), script)] * 4
    assert asked() == [()] * 4


def test_a_keyword_that_the_model_has_no_letters_for_is_refused_wherever_it_is_sent() -> None:
    """The search preferred whatever it could not spell."""
    model = dataclasses.replace(SERVED, letters=frozenset("abcdefghijklmnopqrstuvwxyz'"))
    for refused in (
        lambda: openai_form.parse_transcription(form(("keywords[]", "Anna"), ("keywords[]", "C++")), model),
        lambda: openai_form.parse_native(native(("keywords", "C++")), model),
        lambda: parse_hello({"keywords": ["Anna", "C++"]}, model),
        lambda: configure(Configuration(), {"audio": {"input": {"transcription": {"keywords": ["C++"]}}}}, model),
    ):
        with pytest.raises(InvalidField, match=r"no letters to write 'C\+\+'") as refusal:
            refused()
        assert str(refusal.value.param).endswith("keywords")
    found = openai_form.parse_transcription(form(("keywords[]", "O’Brien"), ("prompt", "We met AT&T and Bert")), model)
    assert found.options.phrases == ("Bert", "O'Brien")


def test_of_several_languages_one_that_is_spoken_will_do() -> None:
    assert parsed(("languages[]", "ja"), ("languages[]", "fr")).options.language == "fr"
    with pytest.raises(UnsupportedField, match="'ja', 'zh'"):
        parsed(("languages[]", "ja"), ("languages[]", "zh"))


def asked_of(model: str, *fields: tuple[str, str | UploadFile], **more: Any) -> openai_form.TranscriptionRequest:
    whole = FormData([("file", UploadFile(io.BytesIO(b"x"))), ("model", model), *fields])
    return openai_form.parse_transcription(whole, EUROPEAN, **more)


@pytest.mark.parametrize("model", get_args(AudioModel))
def test_every_name_of_the_clients_own_list_of_models_is_taken(model: str) -> None:
    assert asked_of(model).format.name == "json"
    transcription = {"audio": {"input": {"transcription": {"model": model}}}}
    if model != DIARIZING_MODEL:
        assert configure(Configuration(), transcription, EUROPEAN).audio.input.transcription
        return
    with pytest.raises(UnsupportedField, match="sockets do not tell who speaks") as refusal:
        configure(Configuration(), transcription, EUROPEAN)
    assert refusal.value.param == "session.audio.input.transcription.model"


def test_further_names_of_the_model_are_the_operators() -> None:
    name = "Systran/faster-whisper-small"
    with pytest.raises(UnknownModel):
        asked_of(name)
    named = dataclasses.replace(EUROPEAN, aliases=frozenset({name}))
    whole = FormData([("file", UploadFile(io.BytesIO(b"x"))), ("model", name)])
    assert openai_form.parse_transcription(whole, named).format.name == "json"


def test_granularities_make_no_difference_to_json_but_for_whisper() -> None:
    """AI SDK 6 sends `segment` with json; OpenAI's newer models take it."""
    granularity = ("timestamp_granularities[]", "segment")
    assert asked_of("gpt-4o-transcribe", granularity).format.name == "json"
    with pytest.raises(InvalidField, match="verbose_json"):
        asked_of("whisper-1", granularity)


@pytest.mark.parametrize("name", ["srt", "verbose_json"])
def test_whisper_does_not_stream_and_says_nothing_about_it(name: str) -> None:
    fields = ("response_format", name), ("stream", "true")
    assert not asked_of("whisper-1", *fields).stream
    if name == "verbose_json":
        assert asked_of("gpt-4o-transcribe", *fields).stream
    else:
        with pytest.raises(InvalidField, match="stream"):
            asked_of("gpt-4o-transcribe", *fields)


@pytest.mark.parametrize("name", [name for name, one in FOREIGN_FIELDS.items() if one.effect is not Effect.KEYWORDS])
def test_a_field_of_another_server_is_taken_as_the_table_says(name: str) -> None:
    assert len(parsed((name, "false")).options.phrases) == 0
    if FOREIGN_FIELDS[name].effect is Effect.OFF_ONLY:
        with pytest.raises(UnsupportedField, match=name):
            parsed((name, "true"))
    else:
        parsed((name, "1"))


@pytest.mark.parametrize("name", ["vad_filter", "user", "seed", "stream_include_usage", "temperature_inc"])
def test_what_clients_of_other_servers_send_is_taken(name: str) -> None:
    assert parsed((name, "1")).options == parsed().options


def test_hotwords_are_keywords() -> None:
    wanted = parsed(("hotwords", "Kubernetes, Anna"), ("keywords[]", "Bert")).options.phrases
    assert (
        wanted == parsed(("keywords[]", "Bert"), ("keywords[]", "Kubernetes"), ("keywords[]", "Anna")).options.phrases
    )


def test_a_field_that_nobody_knows_is_refused_or_ignored_with_a_warning(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(RequestError, match="speed: there is no such field"):
        parsed(("speed", "fast"))
    logger = logging.getLogger("parakeet_stt")  # whose level and ways a test before may have set
    monkeypatch.setattr(logger, "propagate", True)
    caplog.set_level(logging.WARNING, logger.name)
    assert asked_of("whisper-1", ("speed", "fast"), unknown="ignore").format.name == "json"
    assert "'speed' is not known" in caplog.text


def test_the_page_has_the_table_of_other_servers_fields() -> None:
    page = (ROOT / "docs" / "openai.md").read_text()
    assert [name for name in FOREIGN_FIELDS if f"`{name}`" not in page] == []


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


def test_log_probabilities_come_with_events_of_words_too() -> None:
    verbose = [("response_format", "verbose_json"), ("include[]", "logprobs")]
    fields = *verbose, ("stream", "true"), ("timestamp_granularities[]", "word")
    detail = asked_of("gpt-4o-transcribe", *fields).detail
    assert (detail.words, detail.segments, detail.logprobs) == (True, False, True)
    with pytest.raises(InvalidField, match="include"):
        parsed(*verbose)


def test_values_that_are_empty_count_as_left_out() -> None:
    empty = [(name, "") for name in ("language", "prompt", "temperature", "stream", "include[]", "chunking_strategy")]
    assert parsed(*empty).options == parsed().options
    with pytest.raises(InvalidField):
        parsed(("stream", "maybe"))
