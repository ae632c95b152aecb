"""Cuts a recording into utterances while it is read, and keeps no more of its audio than the next one needs."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples, Span
from parakeet_stt.offline.vad_segments import SpeechRules, Stretch, utterance_spans
from parakeet_stt.protocols import SpeechStream
from parakeet_stt.rolling_buffer import RollingBuffer
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A span of a recording, and its audio.

    probabilities: of speech, one for each window of 32 ms; the first window may begin before the span.
    overlap: seconds at its end with which the next utterance begins.
    """

    span: Span
    audio: Audio
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
    """An iterator over the utterances of one recording.

    blocks: float32, shape (num_samples,), at 16 kHz, of any lengths; read as far as the next utterance needs.
    longest: seconds of an utterance, at most; None for one utterance from the first to the last speech. short_first:
    make the first utterances shorter, so that the first words come sooner.
    """

    def __init__(
        self,
        blocks: Iterable[Samples],
        detector: SpeechStream,
        *,
        rules: SpeechRules,
        longest: float | None,
        short_first: bool = False,
    ) -> None:
        self.rules = rules
        self._blocks = blocks
        self._detector = detector
        self._samples, self._windows = RollingBuffer(), RollingBuffer()
        self._probabilities = array("f")  # of the whole recording
        self._is_read = False
        limit = float("inf") if longest is None else longest * SAMPLE_RATE
        self._utterances = self._cut(utterance_spans(self._detect(), rules, limit, short_first=short_first))

    def __iter__(self) -> Iterator[Utterance]:
        return self

    def __next__(self) -> Utterance:
        return next(self._utterances)

    @property
    def duration(self) -> float:
        """Seconds read so far; the recording's length once there are no more utterances."""
        return self._samples.length / SAMPLE_RATE

    @property
    def is_read(self) -> bool:
        """Whether the whole recording has been read, so that the remaining utterances cost no time."""
        return self._is_read

    @property
    def probabilities(self) -> Probabilities:
        """Probability of speech in each window of 32 ms that has been read."""
        return np.array(self._probabilities, np.float32)

    def close(self) -> None:
        """Stop reading, and close the blocks."""
        self._utterances.close()
        close: Callable[[], None] | None = getattr(self._blocks, "close", None)
        if close:
            close()

    def _cut(self, stretches: Iterable[Stretch]) -> Generator[Utterance, None, None]:
        for stretch in stretches:
            span = stretch.span
            if span.length:
                audio = Audio(self._samples.slice(span.start, span.end))
                first, last = span.start // WINDOW_SAMPLES, -(-span.end // WINDOW_SAMPLES)
                yield Utterance(
                    Span(span.start, span.start + len(audio.samples)),
                    audio,
                    self._windows.slice(first, last),
                    stretch.overlap / SAMPLE_RATE,
                )
            self._samples.discard_before(span.end - stretch.overlap)
            self._windows.discard_before((span.end - stretch.overlap) // WINDOW_SAMPLES)

    def _detect(self) -> Iterator[Probabilities]:
        for block in self._blocks:
            self._samples.append(block)
            yield self._store(self._detector.push(block))
        self._is_read = True
        yield self._store(self._detector.flush())

    def _store(self, probabilities: Probabilities) -> Probabilities:
        self._windows.append(probabilities)
        self._probabilities.extend(probabilities.tolist())
        return probabilities
