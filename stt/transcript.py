"""Knows the units of text and their times: token → word → segment → transcript. Does not know how they were found.

All times are seconds from the start of the audio that was given to the recognizer, until `shifted` moves them.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

ENCODER_FRAME_SECONDS = 0.08  # 8x subsampling of a 10 ms hop: the grid of every token time


@dataclass(frozen=True, slots=True)
class Token:
    """One unit of the model's vocabulary.

    piece: as the tokenizer spells it; a leading `▁` begins a word.
    logprob: natural logarithm of the model's own probability of this token, given those before it.
    """

    id: int
    piece: str
    start: float
    end: float
    logprob: float


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """What the decoder found in one utterance."""

    tokens: tuple[Token, ...]


@dataclass(frozen=True, slots=True)
class Word:
    """The tokens between two spaces, with their punctuation."""

    text: str
    start: float
    end: float
    tokens: tuple[Token, ...]

    def shifted(self, seconds: float) -> Word:
        """The same word, `seconds` later."""
        tokens = tuple(dataclasses.replace(t, start=t.start + seconds, end=t.end + seconds) for t in self.tokens)
        return Word(self.text, self.start + seconds, self.end + seconds, tokens)


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or the part of one up to a long silence."""

    words: tuple[Word, ...]

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def start(self) -> float:
        return self.words[0].start

    @property
    def end(self) -> float:
        return self.words[-1].end

    @property
    def tokens(self) -> tuple[Token, ...]:
        return tuple(token for word in self.words for token in word.tokens)

    @property
    def avg_logprob(self) -> float:
        """Mean log-probability of the segment's tokens."""
        tokens = self.tokens
        return sum(token.logprob for token in tokens) / len(tokens)


@dataclass(frozen=True, slots=True)
class Transcript:
    """All words of one recording.

    duration: length of the recording in seconds. language: ISO-639-1.
    """

    words: tuple[Word, ...]
    segments: tuple[Segment, ...]
    duration: float
    language: str

    @property
    def text(self) -> str:
        return " ".join(word.text for word in self.words)

    @property
    def tokens(self) -> Sequence[Token]:
        return tuple(token for word in self.words for token in word.tokens)
