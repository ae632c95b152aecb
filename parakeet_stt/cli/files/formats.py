"""The formats of `parakeet transcribe`: what is asked of the API for them, and how several come of one answer."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

from parakeet_stt.text.formats import write_dialogue, write_srt, write_text, write_vtt
from parakeet_stt.text.transcript import Segment, Transcript, Word, WordList

RESPONSE_FORMATS = {"txt": "text", "srt": "srt", "vtt": "vtt", "json": "verbose_json"}
VERBOSE = RESPONSE_FORMATS["json"]
GRANULARITIES = ("word", "segment")


Fields = Mapping[str, str | Sequence[str]]


def tells_speakers(asked: Fields) -> bool:
    """Whether these fields of the form ask who speaks."""
    return "speakers" in asked or asked.get("channels") == "separate"


def form_fields(formats: Sequence[str], *, speakers: bool = False) -> dict[str, str | Sequence[str]]:
    """The form's fields of one request whose answer gives all these formats. speakers: whether they say who speaks."""
    asked = RESPONSE_FORMATS[formats[0]] if len(formats) == 1 and not speakers else VERBOSE
    return {"response_format": asked} | ({"timestamp_granularities[]": GRANULARITIES} if asked == VERBOSE else {})


def write_outputs(
    body: bytes, formats: Sequence[str], *, speakers: bool = False
) -> tuple[dict[str, bytes], tuple[str, ...]]:
    """The bytes of each format, from the answer to `form_fields`, and the speakers in the order of their first words.

    They are those that the API sends for it, but for `txt` with speakers, of which the API has none. Raises ValueError
    for an answer that is no transcript, or names no speakers though it should.
    """
    if len(formats) == 1 and not speakers:
        return {formats[0]: body}, ()
    transcript = _read_transcript(body)
    found = tuple(dict.fromkeys(segment.speaker for segment in transcript.segments if segment.speaker))
    if speakers and transcript.segments and not found:
        raise ValueError("the server's answer names no speakers: it does not know the field `speakers` or `channels`")
    written = {"txt": write_dialogue if speakers else write_text, "srt": write_srt, "vtt": write_vtt}
    return {name: body if name == "json" else written[name](transcript).encode() for name in formats}, found


def _read_transcript(body: bytes) -> Transcript:
    """The transcript of a verbose_json. Each segment is one word, since the writers need no more of it."""
    try:
        read = json.loads(body)
        segments = [
            Segment((Word(one["text"], one["start"], one["end"], ()),), one.get("speaker")) for one in read["segments"]
        ]
        return Transcript(WordList([Word(read["text"], 0.0, 0.0, ())]), segments, read["duration"], read["language"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"the server's answer is no verbose_json with segments: {body[:100]!r}") from exc
