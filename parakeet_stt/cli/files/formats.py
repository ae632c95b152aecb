"""The formats of `parakeet transcribe`: what is asked of the API for them, and how several come of one answer."""

from __future__ import annotations

import json
from collections.abc import Sequence

from parakeet_stt.text.formats import write_srt, write_text, write_vtt
from parakeet_stt.text.transcript import Segment, Transcript, Word, WordList

RESPONSE_FORMATS = {"txt": "text", "srt": "srt", "vtt": "vtt", "json": "verbose_json"}
VERBOSE = RESPONSE_FORMATS["json"]
GRANULARITIES = ("word", "segment")


def form_fields(formats: Sequence[str]) -> dict[str, str | Sequence[str]]:
    """The form's fields of one request whose answer gives all these formats."""
    asked = RESPONSE_FORMATS[formats[0]] if len(formats) == 1 else VERBOSE
    return {"response_format": asked} | ({"timestamp_granularities[]": GRANULARITIES} if asked == VERBOSE else {})


def write_outputs(body: bytes, formats: Sequence[str]) -> dict[str, bytes]:
    """The bytes of each format, from the answer to `form_fields`: those that the API sends for it.

    Raises ValueError for an answer that is no transcript.
    """
    if len(formats) == 1:
        return {formats[0]: body}
    transcript = _read_transcript(body)
    written = {"txt": write_text, "srt": write_srt, "vtt": write_vtt}
    return {name: body if name == "json" else written[name](transcript).encode() for name in formats}


def _read_transcript(body: bytes) -> Transcript:
    """The transcript of a verbose_json. Each segment is one word, since the writers need no more of it."""
    try:
        read = json.loads(body)
        segments = [Segment((Word(one["text"], one["start"], one["end"], ()),)) for one in read["segments"]]
        return Transcript(WordList([Word(read["text"], 0.0, 0.0, ())]), segments, read["duration"], read["language"])
    except (KeyError, TypeError, ValueError) as exc:
        raise ValueError(f"the server's answer is no verbose_json with segments: {body[:100]!r}") from exc
