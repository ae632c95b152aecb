"""Knows how a transcript is written as text, SRT, WebVTT, OpenAI's JSON, and NeMo's timestamps. Does not know HTTP.

Of hours of audio the entries of a JSON answer would take more memory than all else that is known of it, so each is made
when it is asked for.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from parakeet_stt.offline.transcription import Recording
from parakeet_stt.offline.utterances import Probabilities
from parakeet_stt.offline.vad_segments import no_speech_probability
from parakeet_stt.text.lazy_sequence import Lazy, each
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Segment, Token, Transcript, Word

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


class LogProb(TypedDict):
    """A token of the text, the natural logarithm of the model's own probability of it, and its UTF-8."""

    token: str
    logprob: float
    bytes: list[int]


class InputTokens(TypedDict):
    """What `input_tokens` counts: the model's encoder frames of 80 ms."""

    text_tokens: int
    audio_tokens: int


class TokenUsage(TypedDict):
    """What was heard and written, in the model's own units."""

    type: Literal["tokens"]
    input_tokens: int
    input_token_details: InputTokens
    output_tokens: int
    total_tokens: int


class DurationUsage(TypedDict):
    """The length of the audio, rounded up."""

    type: Literal["duration"]
    seconds: int


class Json(TypedDict):
    """OpenAI's `json`."""

    text: str
    logprobs: NotRequired[Sequence[LogProb]]
    usage: TokenUsage


class WordEntry(TypedDict):
    """A word with its punctuation, and when it was said, in seconds."""

    word: str
    start: float
    end: float


class SegmentEntry(TypedDict):
    """A sentence. seek: its start in frames of 10 ms. no_speech_prob: the speech detector's."""

    id: int
    seek: int
    start: float
    end: float
    text: str
    tokens: list[int]
    temperature: float
    avg_logprob: float
    compression_ratio: float
    no_speech_prob: float


class VerboseTranslation(TypedDict):
    """OpenAI's `verbose_json` of a translation."""

    language: str
    duration: float
    text: str
    segments: NotRequired[Sequence[SegmentEntry]]


class VerboseJson(TypedDict):
    """OpenAI's `verbose_json`, with the granularities asked for."""

    task: Literal["transcribe"]
    language: str
    duration: float
    text: str
    words: NotRequired[Sequence[WordEntry]]
    segments: NotRequired[Sequence[SegmentEntry]]
    usage: DurationUsage


class Delta(TypedDict):
    """Text that is final and follows what was sent before."""

    type: Literal["transcript.text.delta"]
    delta: str
    logprobs: NotRequired[Sequence[LogProb]]


class Done(TypedDict):
    """The whole text: all deltas, one after another."""

    type: Literal["transcript.text.done"]
    text: str
    logprobs: NotRequired[Sequence[LogProb]]
    usage: TokenUsage


def as_json(transcript: Transcript, *, logprobs: bool = False) -> Json:
    """OpenAI's `json`. Usage counts audio in encoder frames: the model's own input tokens."""
    body: Json = {"text": transcript.text, "usage": _token_usage(transcript)}
    if logprobs:
        body["logprobs"] = as_logprobs(transcript.tokens, first=True)
    return body


def as_delta(words: Sequence[Word], *, first: bool, logprobs: bool = False) -> Delta:
    """OpenAI's event for words that have become final. first: whether none were sent before."""
    text = " ".join(word.text for word in words)
    body: Delta = {"type": "transcript.text.delta", "delta": text if first else f" {text}"}
    if logprobs:
        body["logprobs"] = as_logprobs([token for word in words for token in word.tokens], first=first)
    return body


def as_done(transcript: Transcript, *, logprobs: bool = False) -> Done:
    """OpenAI's last event."""
    body: Done = {"type": "transcript.text.done", "text": transcript.text, "usage": _token_usage(transcript)}
    if logprobs:
        body["logprobs"] = as_logprobs(transcript.tokens, first=True)
    return body


def _token_usage(transcript: Transcript) -> TokenUsage:
    frames, tokens = math.ceil(transcript.duration / ENCODER_FRAME_SECONDS), len(transcript.tokens)
    return {
        "type": "tokens",
        "input_tokens": frames,
        "input_token_details": {"text_tokens": 0, "audio_tokens": frames},
        "output_tokens": tokens,
        "total_tokens": frames + tokens,
    }


def as_logprobs(tokens: Sequence[Token], *, first: bool) -> Sequence[LogProb]:
    """OpenAI's list of tokens. first: whether the text begins with them."""
    return Lazy(len(tokens), lambda index: _logprob(tokens[index], first=first and index == 0))


def _logprob(token: Token, *, first: bool) -> LogProb:
    text = token.piece.replace("▁", " ")
    text = text.lstrip() if first else text
    return {"token": text, "logprob": token.logprob, "bytes": list(text.encode())}


def as_verbose_json(recording: Recording, *, words: bool, segments: bool) -> VerboseJson:
    """OpenAI's `verbose_json`, with the granularities asked for."""
    transcript = recording.transcript
    body: VerboseJson = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES[transcript.language],
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": math.ceil(transcript.duration)},
    }
    if words:
        body["words"] = each(transcript.words, _word)
    if segments:
        body["segments"] = _segments(recording)
    return body


def as_verbose_translation(recording: Recording) -> VerboseTranslation:
    """OpenAI's `verbose_json` of a translation."""
    transcript = recording.transcript
    return {
        "language": LANGUAGE_NAMES[transcript.language],
        "duration": _seconds(transcript.duration),
        "text": transcript.text,
        "segments": _segments(recording),
    }


def _word(word: Word) -> WordEntry:
    return {"word": word.text, "start": _seconds(word.start), "end": _seconds(word.end)}


def _segments(recording: Recording) -> Sequence[SegmentEntry]:
    segments = recording.transcript.segments
    return Lazy(len(segments), lambda index: _segment(index, segments[index], recording.probabilities))


def _segment(index: int, segment: Segment, probabilities: Probabilities) -> SegmentEntry:
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


def as_nemo_timestamps(transcript: Transcript) -> dict[str, Sequence[dict[str, Any]]]:
    """NeMo's own shape: offsets in encoder frames of 0.08 s, start and end in seconds."""

    def entry(kind: str, text: str, part: Word | Segment | Token) -> dict[str, Any]:
        offsets = {
            "start_offset": round(part.start / ENCODER_FRAME_SECONDS),
            "end_offset": round(part.end / ENCODER_FRAME_SECONDS),
        }
        return {kind: text, **offsets, "start": _seconds(part.start), "end": _seconds(part.end)}

    def spelled(token: Token) -> str:
        return token.piece.replace("▁", " ").strip()

    words, segments, tokens = transcript.words, transcript.segments, transcript.tokens
    return {
        "word": each(words, lambda word: entry("word", word.text, word)),
        "segment": each(segments, lambda segment: entry("segment", segment.text, segment)),
        "char": each(tokens, lambda token: entry("char", spelled(token), token)),
    }


def _seconds(value: float) -> float:
    """Rounded to the millisecond, once, where numbers leave the service."""
    return round(value, 3)
