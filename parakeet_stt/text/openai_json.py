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
from parakeet_stt.text.transcript import (
    ENCODER_FRAME_SECONDS,
    Recording,
    Segment,
    SpeechCoverage,
    Token,
    Transcript,
    Word,
)
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


class Language(TypedDict):
    """A language that was heard, in ISO-639-1."""

    code: str


class Json(TypedDict):
    """OpenAI's `json`; `languages` of a model of several, if the language is known."""

    text: str
    languages: NotRequired[list[Language]]
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


class UncoveredEntry(TypedDict):
    """Speech, in seconds of the recording, in which no words were found, and how many times it was decoded."""

    start: float
    end: float
    tries: int


class SpeechEntry(TypedDict):
    """Not OpenAI's: seconds of speech by the detector, of it in which words were found, and where none were."""

    seconds: float
    covered_seconds: float
    uncovered: list[UncoveredEntry]


class VerboseJson(TypedDict):
    """OpenAI's `verbose_json`, with the granularities asked for; `speech` with `include[]=coverage`.

    language: its English name; left out if it is not known.
    """

    task: Literal["transcribe"]
    language: NotRequired[str]
    duration: float
    text: str
    words: NotRequired[Sequence[WordEntry]]
    segments: NotRequired[Sequence[SegmentEntry]]
    usage: DurationUsage
    speech: NotRequired[SpeechEntry]


class Delta(TypedDict):
    """Final text that follows the deltas before it.

    words: with response_format verbose_json, if asked for. segment_id: of the segment that it is the text of.
    """

    type: Literal["transcript.text.delta"]
    delta: str
    words: NotRequired[Sequence[WordEntry]]
    logprobs: NotRequired[Sequence[LogProb]]
    segment_id: NotRequired[str]


class Done(TypedDict):
    """The whole text: all deltas, one after another. With response_format verbose_json also that body's members.

    speech: with `include[]=coverage`.
    """

    type: Literal["transcript.text.done"]
    text: str
    languages: NotRequired[list[Language]]
    language: NotRequired[str]
    duration: NotRequired[float]
    words: NotRequired[Sequence[WordEntry]]
    segments: NotRequired[Sequence[SegmentEntry]]
    logprobs: NotRequired[Sequence[LogProb]]
    usage: TokenUsage
    speech: NotRequired[SpeechEntry]


def render_json(transcript: Transcript, *, logprobs: bool = False, languages: bool = False) -> Json:
    """OpenAI's `json`. Usage counts audio in encoder frames: the model's own input tokens."""
    body: Json = {"text": transcript.text, "usage": token_usage(transcript)}
    if languages and transcript.language:
        body["languages"] = [{"code": transcript.language}]
    if logprobs:
        body["logprobs"] = render_logprobs(transcript.tokens, is_first=True)
    return body


def render_delta(words: Sequence[Word], *, is_first: bool, times: bool = False, logprobs: bool = False) -> Delta:
    """OpenAI's event for words that have become final. is_first: whether they begin the text. times: of the words."""
    body: Delta = {"type": "transcript.text.delta", "delta": delta_text(words, is_first=is_first)}
    if times:
        body["words"] = [_word(word) for word in words]
    if logprobs:
        body["logprobs"] = render_logprobs([t for word in words for t in word.tokens], is_first=is_first)
    return body


def render_done(
    recording: Recording,
    *,
    words: bool = False,
    segments: bool = False,
    logprobs: bool = False,
    coverage: bool = False,
    languages: bool = False,
) -> Done:  # seven parameters: each is a part of the answer
    """OpenAI's last event. words, segments: those of verbose_json, whose language and duration come with them."""
    transcript = recording.transcript
    body: Done = {"type": "transcript.text.done", "text": transcript.text, "usage": token_usage(transcript)}
    if words or segments:
        verbose = render_verbose_json(recording, words=words, segments=segments)
        body["duration"] = verbose["duration"]
        if "language" in verbose:
            body["language"] = verbose["language"]
        if "words" in verbose:
            body["words"] = verbose["words"]
        if "segments" in verbose:
            body["segments"] = verbose["segments"]
    if logprobs:
        body["logprobs"] = render_logprobs(transcript.tokens, is_first=True)
    if coverage:
        body["speech"] = render_coverage(recording.speech)
    if languages and transcript.language:
        body["languages"] = [{"code": transcript.language}]
    return body


def render_coverage(speech: SpeechCoverage) -> SpeechEntry:
    """How much of the speech has words."""
    return {
        "seconds": round_seconds(speech.seconds),
        "covered_seconds": round_seconds(speech.covered_seconds),
        "uncovered": [
            {"start": round_seconds(one.start), "end": round_seconds(one.end), "tries": one.tries}
            for one in speech.uncovered
        ],
    }


def delta_text(words: Sequence[Word], *, is_first: bool) -> str:
    """Text of a delta: deltas are appended, so all but the first begin with a space. is_first: of the deltas."""
    text = " ".join(word.text for word in words)
    return text if is_first else f" {text}"


def render_logprobs(tokens: Sequence[Token], *, is_first: bool) -> Sequence[LogProb]:
    """OpenAI's list of tokens. is_first: whether they begin the text."""
    return LazySequence(len(tokens), lambda index: _logprob(tokens[index], is_first=is_first and index == 0))


def render_verbose_json(recording: Recording, *, words: bool, segments: bool, coverage: bool = False) -> VerboseJson:
    """OpenAI's `verbose_json`, with the granularities asked for."""
    transcript = recording.transcript
    body: VerboseJson = {
        "task": "transcribe",
        "language": LANGUAGE_NAMES[transcript.language or "en"],
        "duration": round_seconds(transcript.duration),
        "text": transcript.text,
        "usage": {"type": "duration", "seconds": math.ceil(transcript.duration)},
    }
    if not transcript.language:
        del body["language"]
    if words:
        body["words"] = LazySequence(len(transcript.words), lambda index: _spoken_word(transcript, index))
    if segments:
        body["segments"] = _segments(recording)
    if coverage:
        body["speech"] = render_coverage(recording.speech)
    return body


def render_translation(transcript: Transcript) -> TranslationJson:
    """OpenAI's `json` of a translation."""
    return {"text": transcript.text}


def render_verbose_translation(recording: Recording) -> VerboseTranslation:
    """OpenAI's `verbose_json` of a translation."""
    transcript = recording.transcript
    return {
        "language": "english",
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


def token_usage(transcript: Transcript) -> TokenUsage:
    """The audio in encoder frames, and the text in tokens."""
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


def _word(word: Word) -> WordEntry:
    return {"word": word.text, "start": round_seconds(word.start), "end": round_seconds(word.end)}


def _spoken_word(transcript: Transcript, index: int) -> WordEntry:
    """A word, with its speaker where speakers are told apart."""
    entry, speakers = _word(transcript.words[index]), transcript.speakers
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
