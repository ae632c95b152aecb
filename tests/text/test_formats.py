"""A transcript in each of its written forms, read back by strict parsers."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import zlib

import numpy as np
import pytest
import srt
import webvtt

from parakeet_stt.server.http.responses import json_bytes
from parakeet_stt.text import formats, openai_json
from parakeet_stt.text.alignment import split_segments
from parakeet_stt.text.transcript import Recording, Said, Segment, Token, Transcript, Word, WordList, WordSpeakers


def word(text: str, start: float, end: float) -> Word:
    return Word(text, start, end, (Token(7, "▁" + text, start, end, -0.5),))


def transcript(*words: Word, duration: float = 4000.0) -> Transcript:
    return Transcript(WordList(words), split_segments(words), duration, "en")


TALK = transcript(
    word("One", 0.08, 0.32), word("&", 0.4, 0.56), word("<two>.", 0.64, 1.2), word("Three.", 3661.5005, 3661.5005)
)
EMPTY = transcript(duration=2.0)
NAMED = {0: "A", 1: "Ann & <Bob>"}


def spoken(talk: Transcript, *said: Said) -> Transcript:
    """The transcript with these speakers, each segment with the speaker of its first word."""
    speakers = WordSpeakers(NAMED.__getitem__)
    for one in said:
        speakers.append(one)
    starts = [0, *itertools.accumulate(len(segment.words) for segment in talk.segments)]
    segments = [Segment(one.words, speakers.of(at)) for one, at in zip(talk.segments, starts, strict=False)]
    return dataclasses.replace(talk, segments=segments, speakers=speakers)


SPOKEN = spoken(TALK, Said(0), Said(0, 1), Said(0), Said(1))


def test_subtitles_name_their_speakers() -> None:
    assert [cue.content for cue in srt.parse(formats.write_srt(SPOKEN), ignore_errors=False)] == [
        "Speaker A: One & <two>.",
        "Ann & <Bob>: Three.",
    ]
    cues = webvtt.from_buffer(io.StringIO(formats.write_vtt(SPOKEN))).captions
    assert [cue.raw_text for cue in cues] == [
        "<v A>One &amp; &lt;two&gt;.",
        "<v Ann &amp; &lt;Bob&gt;>Three.",
    ]


def test_verbose_json_names_the_speakers_of_words_and_segments() -> None:
    body = openai_json.render_verbose_json(Recording(SPOKEN, np.zeros(9, np.float32)), words=True, segments=True)
    assert [(one["speaker"], one.get("second_speaker")) for one in body["words"]] == [
        ("A", None), ("A", NAMED[1]), ("A", None), (NAMED[1], None),
    ]  # fmt: skip
    assert [one["speaker"] for one in body["segments"]] == ["A", NAMED[1]]
    assert "speaker" not in openai_json.render_verbose_json(
        Recording(TALK, np.zeros(9, np.float32)), words=True, segments=True
    )["words"][0]  # fmt: skip


def test_the_text_does_not_depend_on_speakers() -> None:
    assert formats.write_text(SPOKEN) == formats.write_text(TALK)
    assert openai_json.render_json(SPOKEN) == openai_json.render_json(TALK)


def test_srt_is_read_by_a_strict_parser() -> None:
    cues = list(srt.parse(formats.write_srt(TALK), ignore_errors=False))
    assert [(c.index, c.content) for c in cues] == [(1, "One & <two>."), (2, "Three.")]
    assert [(c.start.total_seconds(), c.end.total_seconds()) for c in cues] == [(0.08, 1.2), (3661.5, 3661.501)]


def test_vtt_is_read_by_a_strict_parser_and_escapes_its_text() -> None:
    cues = webvtt.from_buffer(io.StringIO(formats.write_vtt(TALK))).captions
    assert [(c.start, c.end) for c in cues] == [("00:00:00.080", "00:00:01.200"), ("01:01:01.500", "01:01:01.501")]
    assert cues[0].raw_text == "One &amp; &lt;two&gt;."


def test_no_speech_is_an_empty_text_in_every_form() -> None:
    assert formats.write_text(EMPTY) == "\n"
    assert list(srt.parse(formats.write_srt(EMPTY), ignore_errors=False)) == []
    assert formats.write_vtt(EMPTY) == "WEBVTT\n\n"
    assert openai_json.render_json(EMPTY)["text"] == ""
    body = openai_json.render_verbose_json(Recording(EMPTY, np.zeros(63, np.float32)), words=True, segments=True)
    assert (body["text"], len(body["words"]), len(body["segments"])) == ("", 0, 0)
    assert json.loads(json_bytes(formats.render_nemo_timestamps(EMPTY))) == {"word": [], "segment": [], "char": []}


@pytest.mark.parametrize("table", [formats.TRANSCRIPTION_FORMATS, formats.TRANSLATION_FORMATS])
def test_each_format_is_one_record_that_writes_what_it_says(table: dict[str, formats.Format]) -> None:
    of_transcriptions = ["diarized_json"] if table is formats.TRANSCRIPTION_FORMATS else []
    assert list(table) == ["json", "text", "srt", "verbose_json", "vtt", *of_transcriptions]
    for name, one in table.items():
        talk = SPOKEN if one.needs_speakers else TALK
        recording = Recording(talk, np.full(200_000, 0.75, np.float32))
        body = one.write(recording, formats.Detail(words=True, logprobs=True))
        assert one.name == name
        assert isinstance(body, str) == (one.schema is None) == one.media_type.startswith(("text/", "application/x-"))
        if one.schema is not None:
            assert body.keys() <= one.schema.__annotations__.keys()  # type: ignore[union-attr]
    assert [name for name, one in formats.TRANSCRIPTION_FORMATS.items() if one.can_stream] == [
        "json", "text", "verbose_json", "diarized_json"
    ]  # fmt: skip


def test_deltas_make_up_the_text() -> None:
    words = list(TALK.words)
    parts = [openai_json.delta_text(words[:2], is_first=True), openai_json.delta_text(words[2:], is_first=False)]
    assert "".join(parts) == TALK.text


def test_json_counts_the_audio_in_encoder_frames_and_sums_its_usage() -> None:
    usage = openai_json.render_json(transcript(word("One", 0, 0.3), duration=2.104))["usage"]
    assert usage["input_tokens"] == 27
    assert usage["total_tokens"] == usage["input_tokens"] + usage["output_tokens"] == 28


def test_a_language_is_named_only_if_it_is_known() -> None:
    def of(language: str | None) -> tuple[object, object]:
        spoken = Transcript(WordList([word("Ja.", 0, 0.3)]), [], 2.0, language)
        verbose = openai_json.render_verbose_json(
            Recording(spoken, np.zeros(63, np.float32)), words=False, segments=False
        )
        return openai_json.render_json(spoken, languages=True).get("languages"), verbose.get("language")

    assert of("de") == ([{"code": "de"}], "german")
    assert of(None) == (None, None)
    assert "languages" not in openai_json.render_json(TALK)


def test_logprobs_concatenate_to_the_text() -> None:
    body = openai_json.render_json(TALK, logprobs=True)
    assert "".join(entry["token"] for entry in body["logprobs"]) == body["text"]
    assert bytes(byte for entry in body["logprobs"] for byte in entry["bytes"]).decode() == body["text"]


def test_verbose_segments_carry_every_field() -> None:
    probabilities = np.full(200_000, 0.75, np.float32)
    body = openai_json.render_verbose_json(Recording(TALK, probabilities), words=False, segments=True)
    assert "words" not in body
    assert body["segments"][0] == {
        "id": 0, "seek": 8, "start": 0.08, "end": 1.2, "text": "One & <two>.", "tokens": [7, 7, 7], "temperature": 0.0,
        "avg_logprob": pytest.approx(-0.5), "compression_ratio": 12 / len(zlib.compress(b"One & <two>.")),
        "no_speech_prob": pytest.approx(0.25),
    }  # fmt: skip
    assert body["usage"] == {"type": "duration", "seconds": 4000}


def test_nemo_timestamps_count_encoder_frames_of_the_whole_upload() -> None:
    stamps = formats.render_nemo_timestamps(TALK)
    assert stamps["word"][1] == {"word": "&", "start_offset": 5, "end_offset": 7, "start": 0.4, "end": 0.56}
    assert stamps["segment"][0]["segment"] == "One & <two>."
    assert [entry["char"] for entry in stamps["char"]] == ["One", "&", "<two>.", "Three."]
