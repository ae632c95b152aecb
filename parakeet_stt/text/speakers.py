"""Gives each word its speaker, and splits segments where the speaker changes.

Speakers are numbers: columns of a diarizer's probabilities, or channels. Callers see labels.
"""

from __future__ import annotations

import string
from array import array
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from parakeet_stt.text.alignment import is_divided
from parakeet_stt.text.lazy_sequence import LazySequence
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Said, Segment, Word, WordList, WordSpeakers

SpeakerProbabilities = npt.NDArray[np.float32]  # shape (frames, speakers): that this speaker speaks in this frame
SILENCE = 0.2  # no speaker is told from lower means over a word's frames
TIE = 0.05  # a smaller lead over the second speaker is chance
OVERLAP = 0.5  # mean from which a second speaker counts as speaking too
STEPS = 255  # a probability is kept as a byte


class SpeakerFrames:
    """The probabilities of a recording's speakers in its frames of 80 ms, as they become known: a byte for each."""

    def __init__(self, speakers: int) -> None:
        self.speakers = speakers
        self._values = bytearray()

    def __len__(self) -> int:
        return len(self._values) // self.speakers

    def covers(self, word: Word) -> bool:
        """Whether all frames of the word are known."""
        return _frames_of(word.start, word.end)[1] <= len(self)

    def append(self, probabilities: SpeakerProbabilities) -> None:
        """The next frames."""
        self._values += np.rint(probabilities * STEPS).astype(np.uint8).tobytes()

    def mean(self, start: float, end: float) -> SpeakerProbabilities:
        """Mean probability of each speaker over the frames of `[start, end]` seconds; zeros where none is known."""
        first, last = _frames_of(start, end)
        values = np.frombuffer(self._values[first * self.speakers : last * self.speakers], np.uint8)
        if not len(values):
            return np.zeros(self.speakers, np.float32)
        means: SpeakerProbabilities = values.reshape(-1, self.speakers).mean(0, dtype=np.float32) / np.float32(STEPS)
        return means


def assign_speakers(sentence: Sequence[Word], frames: SpeakerFrames, before: int | None) -> list[Said]:
    """Who says each word of a sentence: the speaker with the highest mean probability over the word's frames.

    Where there is no lead, or nobody is heard, it is the speaker of the nearest word of the sentence that has one, the
    earlier of two; where no word has one, the speaker `before` the sentence, or else the likeliest.
    """
    means = [frames.mean(word.start, word.end) for word in sentence]
    orders = [np.argsort(-mean, kind="stable") for mean in means]
    leads = [
        int(order[0])
        if mean[order[0]] >= SILENCE and (len(order) == 1 or mean[order[0]] - mean[order[1]] >= TIE)
        else None
        for mean, order in zip(means, orders, strict=True)
    ]
    known = [index for index, lead in enumerate(leads) if lead is not None]
    said = []
    for index, (mean, order, lead) in enumerate(zip(means, orders, leads, strict=True)):
        if lead is None and known:
            lead = leads[min(known, key=lambda other: (_distance(sentence, index, other), other))]
        if lead is None:
            lead = int(order[0]) if before is None else before
        second = next((int(other) for other in order if other != lead and mean[other] >= OVERLAP), None)
        said.append(Said(lead, second))
    return said


def _frames_of(start: float, end: float) -> tuple[int, int]:
    """The frames `[first, last)` of a span of seconds; at least one."""
    first = round(start / ENCODER_FRAME_SECONDS)
    return first, max(first + 1, round(end / ENCODER_FRAME_SECONDS))


def _distance(words: Sequence[Word], one: int, other: int) -> float:
    """Seconds between two words."""
    early, late = sorted((one, other))
    return words[late].start - words[early].end


class Labels:
    """Labels of speakers: their names if they are known, and others A, B, C in the order in which they are asked for.

    names: of the speakers who are known; each may change until that speaker's label is asked for.
    """

    def __init__(self, names: Mapping[int, str]) -> None:
        self._names = names
        self._labels: dict[int, str] = {}
        self._letters = (letter for letter in string.ascii_uppercase if letter not in names.values())

    def __call__(self, speaker: int) -> str:
        """The label of a speaker."""
        if speaker not in self._labels:
            self._labels[speaker] = self._names.get(speaker) or next(self._letters)
        return self._labels[speaker]


class Turns:
    """The segments of a recording with one speaker each, as its words and its speakers become known.

    A segment is final once its sentence has ended, which the next word tells, and the speakers are known up to there.
    words: of the recording, which grow. names: of the speakers who are known. language: of the words; None if it is not
    known.
    """

    def __init__(
        self, words: WordList, frames: SpeakerFrames, names: Mapping[int, str], language: str | None = None
    ) -> None:
        self._words = words
        self._frames = frames
        self._language = language
        self.speakers = WordSpeakers(Labels(names))
        self._starts = array("q")  # index of each final segment's first word
        self._end = 0  # index after the last word of the last final segment
        self._seen = 0  # words in which no sentence ends
        self._last: int | None = None  # who spoke last
        self._taken = 0  # segments

    def advance(self, *, is_over: bool = False) -> None:
        """Find more final segments. is_over: no more words come, and no more frames."""
        words = self._words
        while self._seen < len(words):
            word, following = words[self._seen], self._seen + 1
            if following == len(words) and not is_over:
                return
            if following == len(words) or is_divided(word, words[following], self._language):
                if not is_over and not self._frames.covers(word):
                    return
                self._finish_sentence(following)
            self._seen = following

    def take(self) -> Sequence[Segment]:
        """The final segments that were not taken before."""
        taken, self._taken = self._taken, len(self._starts)
        return tuple(map(self._segment, range(taken, self._taken)))

    def segments(self) -> Sequence[Segment]:
        """All final segments; each is made when it is read."""
        return LazySequence(len(self._starts), self._segment)

    def _finish_sentence(self, end: int) -> None:
        sentence = self._words[self._end : end]
        for index, said in enumerate(assign_speakers(sentence, self._frames, self._last), start=self._end):
            if index == self._end or said.speaker != self._last:
                self._starts.append(index)
                self.speakers.label(said.speaker)  # labels are given in the order of the words
            self._last = said.speaker
            self.speakers.append(said)
        self._end = end

    def _segment(self, number: int) -> Segment:
        start = self._starts[number]
        end = self._starts[number + 1] if number + 1 < len(self._starts) else self._end
        return Segment(tuple(self._words[start:end]), self.speakers.of(start))
