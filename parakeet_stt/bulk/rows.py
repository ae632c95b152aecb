"""Decoded parts → rows of the tables: what a recording's row holds, and why a recording has none.

A row's text, times and probabilities are those of the service's answers: `verbose_json`, and `json` with `logprobs`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from parakeet_stt.bulk.parts import DecodedPart
from parakeet_stt.offline.overlap import OverlapMerger
from parakeet_stt.offline.transcription import make_recording
from parakeet_stt.text.formats import TRANSCRIPTION_FORMATS, Detail
from parakeet_stt.text.openai_json import render_json, render_verbose_json
from parakeet_stt.text.transcript import Recording, WordList

_WORD = pa.struct([("word", pa.string()), ("start", pa.float64()), ("end", pa.float64())])
_SEGMENT = pa.struct(
    [("start", pa.float64()), ("end", pa.float64()), ("text", pa.string()), ("avg_logprob", pa.float64())]
)
_LOGPROB = pa.struct([("token", pa.string()), ("logprob", pa.float64())])
TRANSCRIPTS = pa.schema(
    [
        ("key", pa.string()),
        ("recording", pa.string()),
        ("source", pa.string()),
        ("offset", pa.float64()),
        ("text", pa.string()),
        ("language", pa.string()),
        ("duration", pa.float64()),
        ("speech_seconds", pa.float64()),
        ("truncated", pa.bool_()),
        ("words", pa.list_(_WORD)),
        ("segments", pa.list_(_SEGMENT)),
        ("logprobs", pa.list_(_LOGPROB)),
        ("rtfx", pa.float64()),
        ("model", pa.string()),
        ("code_sha256", pa.string()),
        ("lock_sha256", pa.string()),
        ("model_sha256", pa.string()),
    ]
)
ERRORS = pa.schema([(name, pa.string()) for name in ("key", "recording", "source", "code", "reason")])
SUBTITLES = ("srt", "vtt")


@dataclass(slots=True)
class Rows:
    """Rows of both tables. subtitles: by address of the recording, and then by format."""

    transcripts: list[dict[str, Any]] = field(default_factory=list)
    errors: list[dict[str, Any]] = field(default_factory=list)
    subtitles: dict[str, dict[str, str]] = field(default_factory=dict)


def make_rows(
    recordings: Iterable[Sequence[DecodedPart]],
    *,
    languages: Sequence[str],
    detect_language: Callable[[str], str | None],
    onset: float,
    subtitles: Sequence[str] = (),
) -> Rows:
    """A row for each recording. recordings: all parts of each, or its failure.

    languages: of the model. If it has several, `detect_language` tells which, by the text. onset: lowest probability
    that counts as speech. subtitles: formats.
    """
    rows = Rows()
    for parts in recordings:
        entry, failure = parts[0].part.entry, parts[0].part.failure
        named = {"key": entry.key, "recording": _printable(entry.name), "source": _printable(entry.address)}
        if failure:
            rows.errors.append({**named, "code": failure.code, "reason": failure.reason})
            continue
        recording = join_parts(parts, languages=languages, detect_language=detect_language, onset=onset)
        rows.transcripts.append({**named, "offset": entry.offset, **_row(recording), **_made_by(parts)})
        if subtitles and entry.content is None:
            rows.subtitles[entry.address] = {
                one: str(TRANSCRIPTION_FORMATS[one].write(recording, Detail())) for one in subtitles
            }
    return rows


def join_parts(
    parts: Sequence[DecodedPart],
    *,
    languages: Sequence[str],
    detect_language: Callable[[str], str | None],
    onset: float,
) -> Recording:
    """The recording of all parts, as `offline.transcription` makes it. Arguments as of `make_rows`."""
    words, merger = WordList(), OverlapMerger()
    for part in parts:
        for utterance, found in zip(part.part.utterances, part.found, strict=True):
            words.extend(merger.push(found.words, utterance))
    words.extend(merger.finish())
    end = parts[-1].part.end
    assert end is not None
    return make_recording(
        words,
        np.concatenate([part.part.probabilities for part in parts]),
        end.duration,
        language=languages[0] if len(languages) == 1 else None,
        detect_language=detect_language,
        lost=[lost for part in parts for found in part.found for lost in found.lost],
        onset=onset,
        is_truncated=end.is_truncated,
    )


def _row(recording: Recording) -> dict[str, Any]:
    verbose = render_verbose_json(recording, words=True, segments=True)
    logprobs = render_json(recording.transcript, logprobs=True)["logprobs"]
    return {
        "text": recording.transcript.text,
        "language": recording.transcript.language,
        "duration": verbose["duration"],
        "speech_seconds": recording.speech.seconds,
        "truncated": recording.is_truncated,
        "words": list(verbose["words"]),
        "segments": [_pick(one, _SEGMENT) for one in verbose["segments"]],
        "logprobs": [_pick(one, _LOGPROB) for one in logprobs],
    }


def _made_by(parts: Sequence[DecodedPart]) -> dict[str, Any]:
    maker, decoded = parts[0].maker, [part for part in parts if part.part.utterances] or parts
    return {
        "rtfx": sum(part.rtfx for part in decoded) / len(decoded),
        "model": maker.model,
        "code_sha256": maker.digests.get("source", ""),
        "lock_sha256": maker.digests.get("lock", ""),
        "model_sha256": maker.digests.get("model", ""),
    }


def _pick(entry: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    return {one.name: entry[one.name] for one in kind}


def _printable(name: str) -> str:
    """A name without the surrogates that stand for bytes of a file name that are no UTF-8."""
    return name.encode(errors="replace").decode()
