"""OpenAI's JSON of a transcript: the bodies of `json` and `verbose_json`, and the events of a streamed answer.

For hours of audio the entries of a body would take more memory than everything else, so each entry is made when it is
read.
"""

from __future__ import annotations

import math
import zlib
from collections.abc import Mapping, Sequence
from typing import Literal, NotRequired

from typing_extensions import TypedDict

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Recording, Segment, Token, Transcript, Word
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities

SEEK_FRAME_SECONDS = 0.01  # `seek` counts the 10 ms frames of the spectrogram, as in openai/whisper
# The English names that OpenAI's verbose_json uses, for the languages of the Parakeet family.
LANGUAGE_NAMES: Mapping[str, str] = {
    "bg": "bulgarian", "cs": "czech", "da": "danish", "de": "german", "el": "greek", "en": "english", "es": "spanish",
    "et": "estonian", "fi": "finnish", "fr": "french", "hr": "croatian", "hu": "hungarian", "it": "italian",
    "lt": "lithuanian", "lv": "latvian", "mt": "maltese", "nl": "dutch", "pl": "polish", "pt": "portuguese",
    "ro": "romanian", "ru": "russian", "sk": "slovak", "sl": "slovenian", "sv": "swedish", "uk": "ukrainian",
}  # fmt: skip


class LogProb(TypedDict):
    """A token of the text, the natural logarithm of its probability, and its UTF-8 bytes."""

    token: str
    logprob: float
    bytes: list[int]


class InputTokens(TypedDict):
    """The parts of `input_tokens`, which counts encoder frames of 80 ms."""

    text_tokens: int
    audio_tokens: int


class TokenUsage(TypedDict):
    """Audio and text in the model's own units."""

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
    """A word with its punctuation, and its times in seconds.

    Where speakers are told apart: its speaker, and who speaks at the same time, if anybody does.
    """

    word: str
    start: float
    end: float
    speaker: NotRequired[str]
    second_speaker: NotRequired[str]


class SegmentEntry(TypedDict):
    """A sentence. seek: its start in frames of 10 ms. no_speech_prob: the speech detector's.

    speaker: where speakers are told apart.
    """

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
    speaker: NotRequired[str]


class TranslationJson(TypedDict):
    """OpenAI's `json` of a translation."""

    text: str


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


class Delta(TypedDict):
    """Final text that follows the deltas before it. segment_id: of the segment that it is the text of."""

    type: Literal["transcript.text.delta"]
    delta: str
    logprobs: NotRequired[Sequence[LogProb]]
    segment_id: NotRequired[str]


class Done(TypedDict):
    """The whole text: all deltas, one after another."""

    type: Literal["transcript.text.done"]
    text: str
    logprobs: NotRequired[Sequence[LogProb]]
    usage: TokenUsage


def render_json(transcript: Transcript, *, logprobs: bool = False) -> Json:
    """OpenAI's `json`. Usage counts audio in encoder frames: the model's own input tokens."""
    body: Json = {"text": transcript.text, "usage": _token_usage(transcript)}
    if logprobs:
        body["logprobs"] = render_logprobs(transcript.tokens, is_first=True)
    return body


def render_delta(words: Sequence[Word], *, is_first: bool, logprobs: bool = False) -> Delta:
    """OpenAI's event for words that have become final. is_first: whether they begin the text."""
    body: Delta = {"type": "transcript.text.delta", "delta": delta_text(words, is_first=is_first)}
    if logprobs:
        body["logprobs"] = render_logprobs([t for word in words for t in word.tokens], is_first=is_first)
    return body


def render_diarized_json(transcript: Transcript) -> DiarizedJson:
    """OpenAI's `diarized_json` of a transcript whose speakers are told apart."""
    segments = transcript.segments
    return {
        "task": "transcribe",
        "duration": round_seconds(transcript.duration),
        "text": transcript.text,
        "segments": LazySequence(len(segments), lambda index: render_diarized_segment(segments[index], index)),
        "usage": _token_usage(transcript),
    }


def render_diarized_segment(segment: Segment, index: int) -> DiarizedSegment:
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


def render_done(transcript: Transcript, *, logprobs: bool = False) -> Done:
    """OpenAI's last event."""
    body: Done = {"type": "transcript.text.done", "text": transcript.text, "usage": _token_usage(transcript)}
    if logprobs:
        body["logprobs"] = render_logprobs(transcript.tokens, is_first=True)
    return body


def delta_text(words: Sequence[Word], *, is_first: bool) -> str:
    """Text of a delta: deltas are appended, so all but the first begin with a space. is_first: of the deltas."""
    text = " ".join(word.text for word in words)
    return text if is_first else f" {text}"


def render_logprobs(tokens: Sequence[Token], *, is_first: bool) -> Sequence[LogProb]:
    """OpenAI's list of tokens. is_first: whether they begin the text."""
    return LazySequence(len(tokens), lambda index: _logprob(tokens[index], is_first=is_first and index == 0))


def render_verbose_json(recording: Recording, *, words: bool, segments: bool) -> VerboseJson:
    """OpenAI's `verbose_json`, with the granularities asked for."""
    transcript = recording.transcript
    body: VerboseJson = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES[transcript.language],
        "duration": round_seconds(transcript.duration),
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": math.ceil(transcript.duration)},
    }
    if words:
        body["words"] = LazySequence(len(transcript.words), lambda index: _word(transcript, index))
    if segments:
        body["segments"] = _segments(recording)
    return body


def render_translation(transcript: Transcript) -> TranslationJson:
    """OpenAI's `json` of a translation."""
    return {"text": transcript.text}


def render_verbose_translation(recording: Recording) -> VerboseTranslation:
    """OpenAI's `verbose_json` of a translation."""
    transcript = recording.transcript
    return {
        "language": LANGUAGE_NAMES[transcript.language],
        "duration": round_seconds(transcript.duration),
        "text": transcript.text,
        "segments": _segments(recording),
    }


def round_seconds(value: float) -> float:
    """Round to the millisecond: once, where a time leaves the service."""
    return round(value, 3)


def compression_ratio(text: str) -> float:
    """Bytes of the text over bytes of its zlib compression, as openai/whisper computes it."""
    data = text.encode()
    return len(data) / len(zlib.compress(data))


def no_speech_probability(probabilities: Probabilities, start: float, end: float) -> float:
    """1 - the mean speech probability over `[start, end]` seconds; 1.0 where there is no window."""
    first = int(start * SAMPLE_RATE / WINDOW_SAMPLES)
    last = max(first + 1, math.ceil(end * SAMPLE_RATE / WINDOW_SAMPLES))
    windows = probabilities[first:last]
    return 1.0 - float(windows.mean()) if len(windows) else 1.0


def _token_usage(transcript: Transcript) -> TokenUsage:
    frames, tokens = math.ceil(transcript.duration / ENCODER_FRAME_SECONDS), len(transcript.tokens)
    return {
        "type": "tokens",
        "input_tokens": frames,
        "input_token_details": {"text_tokens": 0, "audio_tokens": frames},
        "output_tokens": tokens,
        "total_tokens": frames + tokens,
    }


def _logprob(token: Token, *, is_first: bool) -> LogProb:
    text = token.piece.replace("▁", " ")
    text = text.lstrip() if is_first else text
    return {"token": text, "logprob": token.logprob, "bytes": list(text.encode())}


def _word(transcript: Transcript, index: int) -> WordEntry:
    word, speakers = transcript.words[index], transcript.speakers
    entry: WordEntry = {"word": word.text, "start": round_seconds(word.start), "end": round_seconds(word.end)}
    if speakers is not None:
        entry["speaker"] = speakers.of(index)
        if second := speakers.second_of(index):
            entry["second_speaker"] = second
    return entry


def _segments(recording: Recording) -> Sequence[SegmentEntry]:
    segments = recording.transcript.segments
    return LazySequence(len(segments), lambda index: _segment(index, segments[index], recording.probabilities))


def _segment(index: int, segment: Segment, probabilities: Probabilities) -> SegmentEntry:
    entry: SegmentEntry = {
        "id": index,
        "seek": int(segment.start / SEEK_FRAME_SECONDS),
        "start": round_seconds(segment.start),
        "end": round_seconds(segment.end),
        "text": segment.text,
        "tokens": [token.id for token in segment.tokens],
        "temperature": 0.0,
        "avg_logprob": segment.avg_logprob,
        "compression_ratio": compression_ratio(segment.text),
        "no_speech_prob": no_speech_probability(probabilities, segment.start, segment.end),
    }
    if segment.speaker is not None:
        entry["speaker"] = segment.speaker
    return entry
