"""Knows how a recording becomes utterances while it is read. Does not know files, the detector, or threads."""

from __future__ import annotations

from array import array
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples, Span
from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES, SpeechRules, Stretch, utterance_spans
from parakeet_stt.protocols import SpeechStream
from parakeet_stt.rolling_buffer import Held

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A span of a recording, and its audio.

    probabilities: of speech, in each window of 32 ms, the first of which may begin before the span.
    overlap: seconds at its end with which the next one begins.
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
    """An iterator over the utterances of one recording. Holds no more of its audio than the next one may need.

    blocks: float32, shape (num_samples,), at 16 kHz, of any lengths; read as far as each next utterance asks for.
    longest: seconds of an utterance, at most; None for one from the first to the last speech. soon: whether the first
    are to be shorter.
    """

    def __init__(
        self,
        blocks: Iterable[Samples],
        detector: SpeechStream,
        *,
        rules: SpeechRules,
        longest: float | None,
        soon: bool = False,
    ) -> None:
        self.rules = rules
        self._blocks = blocks
        self._detector = detector
        self._samples, self._windows = Held(), Held()
        self._probabilities = array("f")  # of the whole recording
        self._is_read = False
        limit = float("inf") if longest is None else longest * SAMPLE_RATE
        self._found = self._find(utterance_spans(self._heard(), rules, limit, soon=soon))

    def __iter__(self) -> Iterator[Utterance]:
        return self

    def __next__(self) -> Utterance:
        return next(self._found)

    @property
    def duration(self) -> float:
        """Seconds that have been read: of the whole recording, once there are no more utterances."""
        return self._samples.length / SAMPLE_RATE

    @property
    def is_read(self) -> bool:
        """Whether all of the recording has been read, so that what is left costs no time."""
        return self._is_read

    @property
    def probabilities(self) -> Probabilities:
        """The probability of speech in each window of 32 ms that has been read."""
        return np.array(self._probabilities, np.float32)

    def close(self) -> None:
        """Read no further, and let go of the blocks."""
        self._found.close()
        close: Callable[[], None] | None = getattr(self._blocks, "close", None)
        if close:
            close()

    def _find(self, stretches: Iterable[Stretch]) -> Generator[Utterance, None, None]:
        for stretch in stretches:
            span = stretch.span
            if span.length:
                audio = Audio(self._samples.cut(span.start, span.end))
                first, last = span.start // WINDOW_SAMPLES, -(-span.end // WINDOW_SAMPLES)
                yield Utterance(
                    Span(span.start, span.start + len(audio.samples)),
                    audio,
                    self._windows.cut(first, last),
                    stretch.overlap / SAMPLE_RATE,
                )
            self._samples.forget(span.end - stretch.overlap)
            self._windows.forget((span.end - stretch.overlap) // WINDOW_SAMPLES)

    def _heard(self) -> Iterator[Probabilities]:
        for block in self._blocks:
            self._samples.add(block)
            yield self._kept(self._detector.probabilities(block))
        self._is_read = True
        yield self._kept(self._detector.rest())

    def _kept(self, probabilities: Probabilities) -> Probabilities:
        self._windows.add(probabilities)
        self._probabilities.extend(probabilities.tolist())
        return probabilities
