"""Knows how a transcript is written as text, SRT, WebVTT, OpenAI's JSON, and NeMo's timestamps. Does not know HTTP."""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping
from typing import Any

from stt.speech import no_speech_probability
from stt.transcriber import Probabilities, Recording
from stt.transcript import ENCODER_FRAME_SECONDS, Segment, Token, Transcript

SEEK_FRAME_SECONDS = 0.01  # `seek` counts the 10 ms frames of the spectrogram, as in openai/whisper
# The English names that OpenAI's verbose_json uses, for the languages of the Parakeet family.
LANGUAGE_NAMES: Mapping[str, str] = {
    "bg": "bulgarian", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "fi": "finnish", "fr": "french", "hr": "croatian", "hu": "hungarian", "it": "italian",
    "lt": "lithuanian", "lv": "latvian", "mt": "maltese", "nl": "dutch", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sk": "slovak", "sl": "slovenian", "sv": "swedish", "uk": "ukrainian",
}  # fmt: skip


def as_text(transcript: Transcript) -> str:
    """The bare text, ending in a line break, as OpenAI's `text` does."""
    return transcript.text + "\n"


def _clock(milliseconds: int, decimal: str) -> str:
    seconds, millis = divmod(milliseconds, 1000)
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}{decimal}{millis:03d}"


def _cues(transcript: Transcript, decimal: str) -> list[tuple[str, str]]:
    """Each segment's time line and text; rounded to whole milliseconds once, and never of zero length."""
    cues = []
    for segment in transcript.segments:
        start = round(segment.start * 1000)
        end = max(round(segment.end * 1000), start + 1)
        cues.append((f"{_clock(start, decimal)} --> {_clock(end, decimal)}", segment.text))
    return cues


def as_srt(transcript: Transcript) -> str:
    """SubRip: numbered cues, one a segment."""
    return "".join(f"{n}\n{line}\n{text}\n\n" for n, (line, text) in enumerate(_cues(transcript, ","), start=1))


def as_vtt(transcript: Transcript) -> str:
    """WebVTT (https://www.w3.org/TR/webvtt1/): one cue a segment, its text escaped."""
    cues = [(line, text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))
            for line, text in _cues(transcript, ".")]  # fmt: skip
    return "WEBVTT\n\n" + "".join(f"{line}\n{text}\n\n" for line, text in cues)


WRITERS: Mapping[str, Callable[[Transcript], str]] = {"text": as_text, "srt": as_srt, "vtt": as_vtt}


def as_json(transcript: Transcript, *, logprobs: bool = False) -> dict[str, Any]:
    """OpenAI's `json`. Usage counts audio in encoder frames: the model's own input tokens."""
    tokens = transcript.tokens
    frames = math.ceil(transcript.duration / ENCODER_FRAME_SECONDS)
    body: dict[str, Any] = {"text": transcript.text}
    if logprobs:
        body["logprobs"] = [_logprob(token, first=index == 0) for index, token in enumerate(tokens)]
    body["usage"] = {
        "type": "tokens",
        "input_tokens": frames,
        "input_token_details": {"text_tokens": 0, "audio_tokens": frames},
        "output_tokens": len(tokens),
        "total_tokens": frames + len(tokens),
    }
    return body


def _logprob(token: Token, *, first: bool) -> dict[str, Any]:
    text = token.piece.replace("▁", " ")
    text = text.lstrip() if first else text
    return {"token": text, "logprob": token.logprob, "bytes": list(text.encode())}


def as_verbose_json(recording: Recording, *, words: bool, segments: bool) -> dict[str, Any]:
    """OpenAI's `verbose_json`, with the granularities asked for."""
    transcript = recording.transcript
    body: dict[str, Any] = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES[transcript.language],
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
    }
    if words:
        body["words"] = [
            {"word": word.text, "start": _seconds(word.start), "end": _seconds(word.end)} for word in transcript.words
        ]
    if segments:
        body["segments"] = [
            _segment(index, segment, recording.probabilities) for index, segment in enumerate(transcript.segments)
        ]
    body["usage"] = {"type": "duration", "seconds": math.ceil(transcript.duration)}
    return body


def _segment(index: int, segment: Segment, probabilities: Probabilities) -> dict[str, Any]:
    return {
        "id": index,
        "seek": int(segment.start / SEEK_FRAME_SECONDS),
        "start": _seconds(segment.start),
        "end": _seconds(segment.end),
        "text": segment.text,
        "tokens": [token.id for token in segment.tokens],
        "temperature": 0.0,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": compression_ratio(segment.text),
        "no_speech_prob": no_speech_probability(probabilities, segment.start, segment.end),
    }


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib compression, as openai/whisper computes it."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def as_nemo_timestamps(transcript: Transcript) -> dict[str, list[dict[str, Any]]]:
    """NeMo's own shape: offsets in encoder frames of 0.08 s, start and end in seconds."""

    def entry(kind: str, text: str, start: float, end: float) -> dict[str, Any]:
        offsets = {
            "start_offset": round(start / ENCODER_FRAME_SECONDS),
            "end_offset": round(end / ENCODER_FRAME_SECONDS),
        }
        return {kind: text, **offsets, "start": _seconds(start), "end": _seconds(end)}

    return {
        "word": [entry("word", word.text, word.start, word.end) for word in transcript.words],
        "segment": [entry("segment", segment.text, segment.start, segment.end) for segment in transcript.segments],
        "char": [
            entry("char", token.piece.replace("▁", " ").strip(), token.start, token.end) for token in transcript.tokens
        ],
    }


def _seconds(value: float) -> float:
    """Rounded to the millisecond, once, where numbers leave the service."""
    return round(value, 3)
