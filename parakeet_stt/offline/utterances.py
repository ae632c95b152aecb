"""Cuts a recording into utterances while it is read, and keeps no more of its audio than the next one needs."""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, AudioBuffer, AudioStore, Clip, Samples, Span
from parakeet_stt.detector_stream import DetectorStream
from parakeet_stt.offline.vad_segments import SpeechRules, Stretch, utterance_spans
from parakeet_stt.rolling_buffer import RollingBuffer
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A span of a recording, and its audio.

    probabilities: of speech, one for each window of 32 ms; the first window may begin before the span.
    overlap: seconds at its end with which the next utterance begins.
    """

    span: Span
    audio: Clip
    probabilities: Probabilities
    overlap: float

    @property
    def start(self) -> float:
        """Seconds from the start of the recording, exact to the sample."""
        return self.span.start / SAMPLE_RATE

    @property
    def end(self) -> float:
        """Seconds from the start of the recording, exact to the sample."""
        return self.span.end / SAMPLE_RATE


class Utterances:
    """The utterances of one recording, as they become known while it is read.

    Iterating gives the next utterance; None if more of the recording has to be read first. The audio of an utterance
    stays until it is released.
    """

    def __init__(
        self, audio: AudioStore, *, rules: SpeechRules, longest: float | None, short_first: bool = False
    ) -> None:
        """audio: of the recording; it is appended to elsewhere, and discarded here.

        longest: seconds of an utterance, at most; None for one utterance from the first to the last speech.
        short_first: make the first utterances shorter, so that the first words come sooner.
        """
        self.rules = rules
        self._audio = audio
        self._windows = RollingBuffer()
        self._probabilities = array("f")  # of the whole recording
        self._unread: deque[Probabilities] = deque()
        self._needed: deque[int] = deque()  # starts of the utterances that are not released
        self._cut_until = 0  # no later utterance begins before it
        self._is_read = False
        limit = float("inf") if longest is None else longest * SAMPLE_RATE
        self._utterances = self._cut(utterance_spans(self._arriving(), rules, limit, short_first=short_first))

    def __iter__(self) -> Iterator[Utterance | None]:
        return self

    def __next__(self) -> Utterance | None:
        return next(self._utterances)

    @property
    def duration(self) -> float:
        """Seconds read so far; the recording's length once there are no more utterances."""
        return self._audio.length / SAMPLE_RATE

    @property
    def probabilities(self) -> Probabilities:
        """Probability of speech in each window of 32 ms that has been read."""
        return np.array(self._probabilities, np.float32)

    def push(self, probabilities: Probabilities) -> None:
        """More of the recording is read. probabilities: of speech in the windows that it completes."""
        self._unread.append(probabilities)

    def finish(self) -> None:
        """All of the recording is read."""
        self._is_read = True

    def release(self) -> None:
        """The first utterance that was not released is decoded: its audio is not needed any more."""
        self._needed.popleft()
        self._discard()

    def _discard(self) -> None:
        self._audio.discard_before(self._needed[0] if self._needed else self._cut_until)

    def _cut(self, stretches: Iterable[Stretch | None]) -> Generator[Utterance | None, None, None]:
        for stretch in stretches:
            if stretch is None:
                yield None
                continue
            span = stretch.span
            if span.length:
                audio = self._audio.clip(span.start, span.end)
                self._needed.append(span.start)
                first, last = span.start // WINDOW_SAMPLES, -(-span.end // WINDOW_SAMPLES)
                yield Utterance(
                    Span(span.start, span.start + audio.length),
                    audio,
                    self._windows.slice(first, last),
                    stretch.overlap / SAMPLE_RATE,
                )
            self._cut_until = span.end - stretch.overlap
            self._discard()
            self._windows.discard_before(self._cut_until // WINDOW_SAMPLES)

    def _arriving(self) -> Iterator[Probabilities | None]:
        while self._unread or not self._is_read:
            if not self._unread:
                yield None
                continue
            probabilities = self._unread.popleft()
            self._windows.append(probabilities)
            self._probabilities.extend(probabilities.tolist())
            yield probabilities


def cut_blocks(
    blocks: Iterable[Samples], detector: DetectorStream, *, rules: SpeechRules, longest: float | None
) -> Iterator[Utterance]:
    """The utterances of a recording in this process's memory; see `Utterances`.

    blocks: float32, shape (num_samples,), at 16 kHz, of any lengths; read as far as the next utterance needs.
    """
    audio = AudioBuffer()

    def probabilities() -> Iterator[Probabilities]:
        for block in blocks:
            audio.append(block)
            yield detector.push(block)
        yield detector.flush()

    return read_utterances(Utterances(audio, rules=rules, longest=longest), probabilities())


def read_utterances(utterances: Utterances, blocks: Iterator[Probabilities]) -> Iterator[Utterance]:
    """All utterances; reads the recording as far as the next one needs, and releases each when the next is asked for.

    blocks: the recording as it is read; each gives the probabilities of speech in the windows that it completes.
    """
    for utterance in utterances:
        if utterance is not None:
            yield utterance
            utterances.release()
        elif (probabilities := next(blocks, None)) is not None:
            utterances.push(probabilities)
        else:
            utterances.finish()
