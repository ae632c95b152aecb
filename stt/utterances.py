"""Knows how a recording becomes utterances while it is read. Does not know files, the detector, or threads."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from stt.audio import SAMPLE_RATE, Audio, Samples, Span
from stt.recognizer import SpeechStream
from stt.speech import SpeechRules, utterance_spans

Probabilities = npt.NDArray[np.float32]


@dataclass(frozen=True, slots=True, eq=False)
class Utterance:
    """A span of a recording, and its audio."""

    span: Span
    audio: Audio

    @property
    def start(self) -> float:
        """Seconds from the start of the recording, exact to the sample."""
        return self.span.start / SAMPLE_RATE


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
        self._blocks = blocks
        self._detector = detector
        self._held: deque[tuple[int, Samples]] = deque()  # each with the place of its first sample
        self._probabilities: list[Probabilities] = []
        self._samples = 0
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
        return self._samples / SAMPLE_RATE

    @property
    def is_read(self) -> bool:
        """Whether all of the recording has been read, so that what is left costs no time."""
        return self._is_read

    @property
    def probabilities(self) -> Probabilities:
        """The probability of speech in each window of 32 ms that has been read."""
        return np.concatenate([np.zeros(0, np.float32), *self._probabilities])

    def close(self) -> None:
        """Read no further, and let go of the blocks."""
        self._found.close()
        close: Callable[[], None] | None = getattr(self._blocks, "close", None)
        if close:
            close()

    def _find(self, spans: Iterable[Span]) -> Generator[Utterance, None, None]:
        for span in spans:
            if span.length:
                audio = self._cut(span)
                yield Utterance(Span(span.start, span.start + len(audio.samples)), audio)
            while self._held and self._held[0][0] + len(self._held[0][1]) <= span.end:
                self._held.popleft()

    def _heard(self) -> Iterator[Probabilities]:
        for block in self._blocks:
            self._held.append((self._samples, block))
            self._samples += len(block)
            self._probabilities.append(self._detector.probabilities(block))
            yield self._probabilities[-1]
        self._is_read = True
        self._probabilities.append(self._detector.rest())
        yield self._probabilities[-1]

    def _cut(self, span: Span) -> Audio:
        parts = [
            block[max(0, span.start - start) : span.end - start]
            for start, block in self._held
            if start < span.end and span.start < start + len(block)
        ]
        return Audio(parts[0] if len(parts) == 1 else np.concatenate(parts))
