"""A recognizer for runs over Ray that gives words at fixed places, in the time that a real one would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace

import ray

from parakeet_stt.audio import Audio
from parakeet_stt.bulk.parts import DecodedPart, Maker, Part
from parakeet_stt.bulk.recognition import PartDecoder
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from scripts.bench.host.recognizer import EndlessRecognizer


class StandIn(EndlessRecognizer):
    """speed: padded seconds of audio that it takes in a second, asleep; infinity to answer at once."""

    def __init__(self, speed: float = float("inf")) -> None:
        self._speed = speed
        self.slept = 0.0  # seconds, so far

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Three tokens a second for each utterance."""
        seconds = max((audio.duration for audio in batch), default=0.0) * len(batch) / self._speed
        time.sleep(seconds)
        self.slept += seconds
        return super().recognize(batch, phrases)


class MarkingDecoder(PartDecoder):
    """Marks what it has decoded, in place of digests.

    source: the node. lock: the time at which the actor had started, in seconds since 1970. model: the seconds for which
    its recognizer has slept since then.
    """

    def __init__(self, recognizer: StandIn, settings: BulkSettings) -> None:
        super().__init__(recognizer, settings, Maker("stand-in", {}))
        self._recognizer, self._warming = recognizer, recognizer.slept
        self._started = {"source": ray.get_runtime_context().get_node_id(), "lock": str(time.time())}

    def decode(self, parts: Sequence[Part]) -> list[DecodedPart]:
        """Decode, and mark."""
        decoded = super().decode(parts)
        marks = {**self._started, "model": str(self._recognizer.slept - self._warming)}
        return [replace(one, maker=Maker("stand-in", marks)) for one in decoded]


@dataclass(frozen=True, slots=True)
class LoadStandIn:
    """Makes the decoder of an actor; see `pipeline.Job`. marks: whether rows say which; see `MarkingDecoder`."""

    speed: float = float("inf")
    marks: bool = False

    def __call__(self, settings: BulkSettings) -> PartDecoder:
        """One that is warm."""
        recognizer = StandIn(self.speed)
        return (
            MarkingDecoder(recognizer, settings)
            if self.marks
            else PartDecoder(recognizer, settings, Maker("stand-in", {}))
        )
