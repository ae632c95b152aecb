"""What goes from machine to machine: recordings in parts of some minutes, before and after they are decoded."""

from __future__ import annotations

import pickle
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from parakeet_stt.audio import Audio
from parakeet_stt.bulk.entries import Entry
from parakeet_stt.offline.decoding import Found
from parakeet_stt.offline.utterances import Utterance
from parakeet_stt.vad import Probabilities

# Pickled values stand beside the audio as bytes: they are read by the same program that has written them.
READ = pa.schema([("part", pa.binary()), ("audio", pa.large_binary())])
DECODED = pa.schema([("part", pa.binary())])


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a recording has no transcript. code: as in the service's answers."""

    code: str
    reason: str


@dataclass(frozen=True, slots=True)
class End:
    """What is known at the end of a recording. duration: in seconds."""

    duration: float
    is_truncated: bool


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """Utterances of a recording that follow each other, with their audio in memory.

    number: from 0. probabilities: of speech, in the windows that were read since the part before. end: of the last
    part only, or else failure.
    """

    entry: Entry
    number: int
    utterances: tuple[Utterance, ...] = ()
    probabilities: Probabilities = field(default_factory=lambda: np.zeros(0, np.float32))
    end: End | None = None
    failure: Failure | None = None

    @property
    def seconds(self) -> float:
        """Of audio in the utterances."""
        return sum(utterance.audio.duration for utterance in self.utterances)


@dataclass(frozen=True, slots=True)
class Maker:
    """What made a transcript. digests: SHA-256 of code, lock and model, as a Bento's labels. model: its name."""

    model: str
    digests: dict[str, str]


@dataclass(frozen=True, slots=True, eq=False)
class DecodedPart:
    """A part with words in place of audio. found: of each utterance, which is without its audio's samples.

    rtfx: seconds of utterances that were decoded in a second, in the call in which this part was.
    """

    part: Part
    found: tuple[Found, ...]
    rtfx: float
    maker: Maker


def to_table(parts: Iterable[Part]) -> pa.Table:
    """Parts as a table of `READ`: the samples stand apart from all else, and are never copied when they are read."""
    rows = []
    for part in parts:
        samples = [np.ascontiguousarray(_samples(one)) for one in part.utterances]
        lengths = [len(one) for one in samples]
        bare = [(one.span, one.probabilities, one.overlap) for one in part.utterances]
        kept = (part.entry, part.number, bare, lengths, part.probabilities, part.end, part.failure)
        rows.append({"part": pickle.dumps(kept), "audio": b"".join(one.tobytes() for one in samples)})
    return pa.Table.from_pylist(rows, READ)


def from_table(table: pa.Table) -> Iterator[Part]:
    """The parts of such a table."""
    for kept, audio in zip(table["part"], table["audio"], strict=True):
        entry, number, bare, lengths, probabilities, end, failure = pickle.loads(kept.as_py())  # noqa: S301
        samples = np.frombuffer(audio.as_buffer(), np.float32)
        places = np.cumsum([0, *lengths]).tolist()
        utterances = tuple(
            Utterance(span, Audio(samples[place : place + length]), speech, overlap)
            for (span, speech, overlap), place, length in zip(bare, places, lengths, strict=False)
        )
        yield Part(entry, number, utterances, probabilities, end, failure)


def to_decoded_table(parts: Iterable[DecodedPart]) -> pa.Table:
    """Decoded parts as a table of `DECODED`."""
    return pa.Table.from_pylist([{"part": pickle.dumps(one)} for one in parts], DECODED)


def from_decoded_table(table: pa.Table) -> Iterator[DecodedPart]:
    """The parts of such a table."""
    for kept in table["part"]:
        yield pickle.loads(kept.as_py())  # noqa: S301


def without_audio(utterance: Utterance) -> Utterance:
    """The same utterance without samples, which nobody needs once it is decoded. Its span has its length."""
    return Utterance(utterance.span, Audio(np.zeros(0, np.float32)), np.zeros(0, np.float32), utterance.overlap)


class Gathering:
    """Puts the parts of each recording together, in whatever order they come, and however often."""

    def __init__(self, done: set[str]) -> None:
        """done: keys of recordings that were finished before; it grows."""
        self._waiting: dict[str, dict[int, DecodedPart]] = {}
        self._done = done

    def add(self, part: DecodedPart) -> list[DecodedPart] | None:
        """All parts of its recording, in order, once they are there; None before that, and for what is there already.

        A part with a failure completes its recording.
        """
        key = part.part.entry.key
        if key in self._done:
            return None
        parts = self._waiting.setdefault(key, {})
        parts[part.part.number] = part
        failed = [one for one in parts.values() if one.part.failure]
        last = next((number for number, one in parts.items() if one.part.end), None)
        if not failed and (last is None or len(parts) <= last):
            return None
        self._done.add(key)
        del self._waiting[key]
        return failed[:1] or [parts[number] for number in range(last + 1 if last is not None else 0)]


def _samples(utterance: Utterance) -> Any:
    assert isinstance(utterance.audio, Audio)
    return utterance.audio.samples
