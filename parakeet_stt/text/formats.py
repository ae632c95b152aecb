"""The formats of an answer, one record each: its name, media type, writer and example."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from parakeet_stt.text import openai_json
from parakeet_stt.text.lazy_sequence import lazy_map
from parakeet_stt.text.openai_json import Json, TranslationJson, VerboseJson, VerboseTranslation, round_seconds
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Recording, Segment, Token, Transcript, Word

EXAMPLE_TEXT = "If the food is good, everyone will bring the first question."


@dataclass(frozen=True, slots=True)
class Detail:
    """What a JSON format holds besides the text."""

    words: bool = False
    segments: bool = True
    logprobs: bool = False
    coverage: bool = False


@dataclass(frozen=True, slots=True)
class Format:
    """One value of `response_format`.

    write: the body as text, or as a mapping that becomes JSON. example: of a body. schema: of a JSON body; None for
    text. can_stream: whether it may be had with `stream=true`.
    """

    name: str
    media_type: str
    write: Callable[[Recording, Detail], str | Mapping[str, Any]]
    example: Any
    schema: Any = None
    can_stream: bool = False


def write_text(transcript: Transcript) -> str:
    """The bare text, ending in a line break, as OpenAI's `text` does."""
    return transcript.text + "\n"


def write_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, one for each segment."""
    return "".join(f"{n}\n{line}\n{text}\n\n" for n, (line, text) in enumerate(_cues(transcript, ","), start=1))


def write_vtt(transcript: Transcript) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/): one cue for each segment, its text escaped."""
    cues = [(line, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
            for line, text in _cues(transcript, ".")]  # fmt: skip
    return "WEBVTT\n\n" + "".join(f"{line}\n{text}\n\n" for line, text in cues)


def render_nemo_timestamps(transcript: Transcript) -> dict[str, Sequence[dict[str, Any]]]:
    """NeMo's own shape: offsets in encoder frames of 0.08 s, start and end in seconds."""

    def entry(kind: str, text: str, part: Word | Segment | Token) -> dict[str, Any]:
        offsets = {
            "start_offset": round(part.start / ENCODER_FRAME_SECONDS),
            "end_offset": round(part.end / ENCODER_FRAME_SECONDS),
        }
        return {kind: text, **offsets, "start": round_seconds(part.start), "end": round_seconds(part.end)}

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


def _cues(transcript: Transcript, decimal: str) -> list[tuple[str, str]]:
    """Each segment's time line and text. Times are rounded to whole milliseconds once; no cue has zero length."""
    cues = []
    for segment in transcript.segments:
        start = round(segment.start * 1000)
        end = max(round(segment.end * 1000), start + 1)
        cues.append((f"{_clock(start, decimal)} --> {_clock(end, decimal)}", segment.text))
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
_TEXT = Format("text", "text/plain", lambda r, _: write_text(r.transcript), EXAMPLE_TEXT + "\n", can_stream=True)
_SRT = Format(
    "srt", "application/x-subrip", lambda r, _: write_srt(r.transcript),
    f"1\n00:00:00,080 --> 00:00:03,120\n{EXAMPLE_TEXT}\n\n",
)  # fmt: skip
_VTT = Format(
    "vtt", "text/vtt", lambda r, _: write_vtt(r.transcript),
    f"WEBVTT\n\n00:00:00.080 --> 00:00:03.120\n{EXAMPLE_TEXT}\n\n",
)  # fmt: skip


def _by_name(*formats: Format) -> Mapping[str, Format]:
    return {one.name: one for one in formats}


TRANSCRIPTION_FORMATS = _by_name(
    Format(
        "json", "application/json", lambda r, detail: openai_json.render_json(r.transcript, logprobs=detail.logprobs),
        _JSON_EXAMPLE, Json, can_stream=True,
    ),
    _TEXT,
    _SRT,
    Format(
        "verbose_json", "application/json",
        lambda r, detail: openai_json.render_verbose_json(
            r, words=detail.words, segments=detail.segments, coverage=detail.coverage
        ),
        None, VerboseJson, can_stream=True,
    ),
    _VTT,
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
