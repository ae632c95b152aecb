"""OpenAI's JSON of a transcript whose speakers are told apart: the body of `diarized_json`, and its event."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from typing_extensions import TypedDict

from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.openai_json import TokenUsage, round_seconds, token_usage
from parakeet_stt.text.transcript import Segment, Transcript


class DiarizedSegment(TypedDict):
    """A sentence, or the part of one that one speaker says. Also an event of a streamed answer."""

    type: Literal["transcript.text.segment"]
    id: str
    start: float
    end: float
    text: str
    speaker: str


class DiarizedJson(TypedDict):
    """OpenAI's `diarized_json`: what is said, and by whom."""

    task: Literal["transcribe"]
    duration: float
    text: str
    segments: Sequence[DiarizedSegment]
    usage: TokenUsage


def render_diarized_json(transcript: Transcript) -> DiarizedJson:
    """OpenAI's `diarized_json` of a transcript whose speakers are told apart."""
    segments = transcript.segments
    return {
        "task": "transcribe",
        "duration": round_seconds(transcript.duration),
        "text": transcript.text,
        "segments": LazySequence(len(segments), lambda index: render_segment(segments[index], index)),
        "usage": token_usage(transcript),
    }


def render_segment(segment: Segment, index: int) -> DiarizedSegment:
    """OpenAI's segment of one speaker. index: among all of the recording."""
    assert segment.speaker is not None
    return {
        "type": "transcript.text.segment",
        "id": f"seg_{index:03d}",
        "start": round_seconds(segment.start),
        "end": round_seconds(segment.end),
        "text": segment.text,
        "speaker": segment.speaker,
    }
