"""The formats of an answer, one record each: its name, media type, writer and example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from parakeet_stt.text import diarized_json, openai_json
from parakeet_stt.text.diarized_json import DiarizedJson
from parakeet_stt.text.lazy_sequence import lazy_map
from parakeet_stt.text.openai_json import (
    Json,
    TranslationJson,
    VerboseJson,
    VerboseTranslation,
    round_seconds,
)
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Recording, Segment, Token, Transcript, Word

EXAMPLE_TEXT = "If the food is good, everyone will bring the first question."


@dataclass(frozen=True, slots=True)
class Detail:
    """What a JSON format holds besides the text."""

    words: bool = False
    segments: bool = True
    logprobs: bool = False
    coverage: bool = False
    languages: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One value of `response_format`.

    write: the body as text, or as a mapping that becomes JSON. example: of a body. schema: of a JSON body; None for
    text. can_stream: whether it may be had with `stream=true`. needs_speakers: whether it can be written only where
    speakers are told apart. shows_speakers: whether it says who speaks, where they are.
    """

    name: str
    media_type: str
    write: Callable[[Recording, Detail], str | Mapping[str, Any]]
    example: Any
    schema: Any = None
    can_stream: bool = False
    needs_speakers: bool = False
    shows_speakers: bool = False


def write_text(transcript: Transcript) -> str:
    """The bare text, ending in a line break, as OpenAI's `text` does."""
    return transcript.text + "\n"


def write_dialogue(transcript: Transcript) -> str:
    """A line for each turn, all that one speaker says before another does, which begins with who speaks."""
    turns = groupby(transcript.segments, key=lambda segment: segment.speaker)
    return "".join(f"{_called(who)}{' '.join(segment.text for segment in said)}\n" for who, said in turns)


def write_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, one for each segment, which begins with its speaker where speakers are told apart."""
    return "".join(
        f"{n}\n{line}\n{_called(speaker)}{text}\n\n"
        for n, (line, speaker, text) in enumerate(_cues(transcript, ","), start=1)
    )


def write_vtt(transcript: Transcript) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/): one cue for each segment, its text escaped.

    Where speakers are told apart, each cue is a voice span.
    """
    return "WEBVTT\n\n" + "".join(
        f"{line}\n{f'<v {_escape(speaker)}>' if speaker else ''}{_escape(text)}\n\n"
        for line, speaker, text in _cues(transcript, ".")
    )


def render_nemo_timestamps(transcript: Transcript) -> dict[str, Sequence[dict[str, Any]]]:
    """NeMo's own shape: offsets in encoder frames of 0.08 s, start and end in seconds."""

    def entry(kind: str, text: str, part: Word | Segment | Token) -> dict[str, Any]:
        offsets = {
            "start_offset": round(part.start / ENCODER_FRAME_SECONDS),
            "end_offset": round(part.end / ENCODER_FRAME_SECONDS),
        }
        times = {"start": round_seconds(part.start), "end": round_seconds(part.end)}
        speaker = {"speaker": part.speaker} if isinstance(part, Segment) and part.speaker else {}
        return {kind: text, **offsets, **times, **speaker}

    def spell(token: Token) -> str:
        return token.piece.replace("▁", " ").strip()

    words, segments, tokens = transcript.words, transcript.segments, transcript.tokens
    return {
        "word": lazy_map(words, lambda word: entry("word", word.text, word)),
        "segment": lazy_map(segments, lambda segment: entry("segment", segment.text, segment)),
        "char": lazy_map(tokens, lambda token: entry("char", spell(token), token)),
    }


def _clock(milliseconds: int, decimal: str) -> str:
    seconds, millis = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{decimal}{millis:03d}"


def _escape(text: str) -> str:
    """Text in a WebVTT cue; a name has no line breaks and no `>`."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _called(speaker: str | None) -> str:
    """What a subtitle calls its speaker: `Speaker A: ` if it is a letter, else the name."""
    if speaker is None:
        return ""
    return f"Speaker {speaker}: " if len(speaker) == 1 else f"{speaker}: "


def _cues(transcript: Transcript, decimal: str) -> list[tuple[str, str | None, str]]:
    """Each segment's time line, speaker and text. Times are rounded to whole milliseconds once; no cue is empty."""
    cues = []
    for segment in transcript.segments:
        start = round(segment.start * 1000)
        end = max(round(segment.end * 1000), start + 1)
        cues.append((f"{_clock(start, decimal)} --> {_clock(end, decimal)}", segment.speaker, segment.text))
    return cues


_JSON_EXAMPLE = {
    "text": EXAMPLE_TEXT,
    "usage": {
        "type": "tokens",
        "input_tokens": 39,
        "output_tokens": 16,
        "total_tokens": 55,
        "input_token_details": {"text_tokens": 0, "audio_tokens": 39},
    },
}
_DIARIZED_EXAMPLE = {
    "task": "transcribe",
    "duration": 3.12,
    "text": EXAMPLE_TEXT,
    "segments": [
        {
            "type": "transcript.text.segment",
            "id": "seg_000",
            "start": 0.08,
            "end": 3.12,
            "text": EXAMPLE_TEXT,
            "speaker": "A",
        }
    ],
    "usage": _JSON_EXAMPLE["usage"],
}
_TEXT = Format("text", "text/plain", lambda r, _: write_text(r.transcript), EXAMPLE_TEXT + "\n", can_stream=True)
_SRT = Format(
    "srt", "application/x-subrip", lambda r, _: write_srt(r.transcript),
    f"1\n00:00:00,080 --> 00:00:03,120\n{EXAMPLE_TEXT}\n\n", shows_speakers=True,
)  # fmt: skip
_VTT = Format(
    "vtt", "text/vtt", lambda r, _: write_vtt(r.transcript),
    f"WEBVTT\n\n00:00:00.080 --> 00:00:03.120\n{EXAMPLE_TEXT}\n\n", shows_speakers=True,
)  # fmt: skip


def _by_name(*formats: Format) -> Mapping[str, Format]:
    return {one.name: one for one in formats}


TRANSCRIPTION_FORMATS = _by_name(
    Format(
        "json", "application/json",
        lambda r, detail: openai_json.render_json(
            r.transcript, logprobs=detail.logprobs, languages=detail.languages
        ),
        _JSON_EXAMPLE, Json, can_stream=True,
    ),
    _TEXT,
    _SRT,
    Format(
        "verbose_json", "application/json",
        lambda r, detail: openai_json.render_verbose_json(
            r, words=detail.words, segments=detail.segments, coverage=detail.coverage
        ),
        None, VerboseJson, can_stream=True, shows_speakers=True,
    ),
    _VTT,
    Format(
        "diarized_json", "application/json", lambda r, _: diarized_json.render_diarized_json(r.transcript),
        _DIARIZED_EXAMPLE, DiarizedJson, can_stream=True, needs_speakers=True, shows_speakers=True,
    ),
)  # fmt: skip
TRANSLATION_FORMATS = _by_name(
    Format(
        "json", "application/json", lambda r, _: openai_json.render_translation(r.transcript),
        {"text": EXAMPLE_TEXT}, TranslationJson,
    ),
    _TEXT,
    _SRT,
    Format(
        "verbose_json", "application/json", lambda r, _: openai_json.render_verbose_translation(r), None,
        VerboseTranslation,
    ),
    _VTT,
)  # fmt: skip
