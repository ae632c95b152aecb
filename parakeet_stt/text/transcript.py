"""Units of text and their times: token → word → segment → transcript.

All times are seconds from the start of the audio that the recognizer was given; `shift` moves them.
"""

from __future__ import annotations

from array import array
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import overload

import numpy as np
import numpy.typing as npt

from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.vad import Probabilities

ENCODER_FRAME_SECONDS = 0.08  # 8x subsampling of a 10 ms hop: the grid of every token time


@dataclass(frozen=True, slots=True)
class Token:
    """One unit of the model's vocabulary.

    piece: as the tokenizer spells it; a leading `▁` begins a word.
    logprob: natural logarithm of the model's probability of this token, given the tokens before it.
    """

    id: int
    piece: str
    start: float
    end: float
    logprob: float

    def shift(self, seconds: float) -> Token:
        """The same token, `seconds` later."""
        return Token(self.id, self.piece, self.start + seconds, self.end + seconds, self.logprob)


@dataclass(frozen=True, slots=True, eq=False)
class TokenArrays(Sequence[Token]):
    """Tokens as arrays of shape (count,): what an engine gives, and what crosses to another process.

    vocabulary: the piece of each id. ids: int32. starts, ends: float64, in seconds. logprobs: float32.
    Reading an item makes a `Token`. Equal to any sequence of the same tokens.
    """

    vocabulary: Sequence[str]
    ids: npt.NDArray[np.int32]
    starts: npt.NDArray[np.float64]
    ends: npt.NDArray[np.float64]
    logprobs: npt.NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.ids)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and tuple(self) == tuple(other)

    def __hash__(self) -> int:
        return hash(tuple(self))

    def __iter__(self) -> Iterator[Token]:
        ids = self.ids.tolist()
        pieces = map(self.vocabulary.__getitem__, ids)
        return map(Token, ids, pieces, self.starts.tolist(), self.ends.tolist(), self.logprobs.tolist())

    @overload
    def __getitem__(self, index: int) -> Token: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[Token]: ...

    def __getitem__(self, index: int | slice) -> Token | Sequence[Token]:
        return tuple(self)[index]


@dataclass(frozen=True, slots=True)
class Hypothesis:
    """The decoder's output for one utterance."""

    tokens: Sequence[Token]


@dataclass(frozen=True, slots=True)
class Word:
    """The tokens between two spaces, with their punctuation."""

    text: str
    start: float
    end: float
    tokens: tuple[Token, ...]

    def shift(self, seconds: float) -> Word:
        """The same word, `seconds` later."""
        tokens = tuple([token.shift(seconds) for token in self.tokens])
        return Word(self.text, self.start + seconds, self.end + seconds, tokens)


@dataclass(frozen=True, slots=True)
class Segment:
    """A sentence, or the part of one up to a long silence or to another speaker.

    speaker: label of the speaker who says it; None where speakers are not told apart.
    """

    words: tuple[Word, ...]
    speaker: str | None = None

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


class WordList(LazySequence[Word]):
    """A growing list of words, stored in arrays: a word of 2.5 tokens takes 150 bytes instead of 650.

    A recording of hours keeps all of its words in memory until the last one is known.
    """

    def __init__(self, words: Iterable[Word] = ()) -> None:
        super().__init__(0, self._word)
        self._texts: list[str] = []
        self._times = array("d")  # start and end of each word
        self._token_ends = array("q", [0])  # index after each word's last token, among all tokens
        self._pieces: list[str] = []
        self._ids = array("i")
        self._token_times = array("d")  # start, end and log-probability of each token
        self._interned: dict[str, str] = {}  # equal texts share one object
        self.extend(words)

    @property
    def text(self) -> str:
        """All words, with a space between two."""
        return " ".join(self._texts)

    @property
    def times(self) -> npt.NDArray[np.float64]:
        """Start and end of each word in seconds, shape (words, 2); a copy."""
        return np.array(self._times, np.float64).reshape(-1, 2)

    @property
    def tokens(self) -> Sequence[Token]:
        """The tokens of all words that are in the list now."""
        return LazySequence(len(self._pieces), self._token)

    def extend(self, words: Iterable[Word]) -> None:
        """Append words."""
        for word in words:
            self._texts.append(self._interned.setdefault(word.text, word.text))
            self._times.extend((word.start, word.end))
            for token in word.tokens:
                self._pieces.append(token.piece)
                self._ids.append(token.id)
                self._token_times.extend((token.start, token.end, token.logprob))
            self._token_ends.append(len(self._pieces))
            self._count += 1

    def _word(self, index: int) -> Word:
        tokens = tuple(map(self._token, range(self._token_ends[index], self._token_ends[index + 1])))
        return Word(self._texts[index], self._times[2 * index], self._times[2 * index + 1], tokens)

    def _token(self, index: int) -> Token:
        return Token(self._ids[index], self._pieces[index], *self._token_times[3 * index : 3 * index + 3])


@dataclass(frozen=True, slots=True)
class Said:
    """Who says a word, as numbers of speakers. second: who speaks at the same time; None if nobody does."""

    speaker: int
    second: int | None = None


class WordSpeakers:
    """Who says each word of a recording: two bytes a word. label: of a speaker's number."""

    def __init__(self, label: Callable[[int], str]) -> None:
        self.label = label
        self._speakers = array("b")
        self._seconds = array("b")  # -1: nobody

    def __len__(self) -> int:
        return len(self._speakers)

    def append(self, said: Said) -> None:
        """Who says the next word."""
        self._speakers.append(said.speaker)
        self._seconds.append(-1 if said.second is None else said.second)

    def of(self, index: int) -> str:
        """Label of the speaker of the word at this index."""
        return self.label(self._speakers[index])

    def second_of(self, index: int) -> str | None:
        """Label of whoever speaks at the same time as the word at this index."""
        second = self._seconds[index]
        return None if second < 0 else self.label(second)


@dataclass(frozen=True, slots=True)
class Transcript:
    """All words of one recording.

    duration: length of the recording in seconds. language: ISO-639-1; None if it is not known. speakers: of the words;
    None where they are not told apart.
    """

    words: WordList
    segments: Sequence[Segment]
    duration: float
    language: str | None
    speakers: WordSpeakers | None = None

    @property
    def text(self) -> str:
        return self.words.text

    @property
    def tokens(self) -> Sequence[Token]:
        return self.words.tokens


@dataclass(frozen=True, slots=True)
class Uncovered:
    """Speech in which no words were found. tries: how many times it was decoded."""

    start: float
    end: float
    tries: int


@dataclass(frozen=True, slots=True)
class SpeechCoverage:
    """How much of a recording's speech has words.

    seconds: of speech, by the detector. covered_seconds: of it, outside of `uncovered`. uncovered: in order.
    """

    seconds: float = 0.0
    covered_seconds: float = 0.0
    uncovered: tuple[Uncovered, ...] = ()

    @property
    def uncovered_seconds(self) -> float:
        """Seconds of speech without words."""
        return self.seconds - self.covered_seconds


@dataclass(frozen=True, slots=True)
class Recording:
    """Result for one recording.

    probabilities: of speech, one for each window of 32 ms. is_truncated: the file ended before the length that it
    announces. speech: how much of it has words.
    """

    transcript: Transcript
    probabilities: Probabilities
    is_truncated: bool = False
    speech: SpeechCoverage = SpeechCoverage()
