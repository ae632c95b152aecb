"""A recognizer for runs over Ray that gives words at fixed places, in the time that a real one would take."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

import ray

from parakeet_stt.audio import Audio
from parakeet_stt.bulk.parts import Maker
from parakeet_stt.bulk.recognition import PartDecoder
from parakeet_stt.bulk.settings import BulkSettings
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from scripts.bench.host.recognizer import EndlessRecognizer


class StandIn(EndlessRecognizer):
    """speed: padded seconds of audio that it takes in a second, asleep; infinity to answer at once."""

    def __init__(self, speed: float = float("inf")) -> None:
        self._speed = speed

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Three tokens a second for each utterance."""
        time.sleep(max((audio.duration for audio in batch), default=0.0) * len(batch) / self._speed)
        return super().recognize(batch, phrases)


@dataclass(frozen=True, slots=True)
class LoadStandIn:
    """Makes the decoder of an actor; see `pipeline.Job`. marks: whether rows name the node, as their code's digest."""

    speed: float = float("inf")
    marks: bool = False

    def __call__(self, settings: BulkSettings) -> PartDecoder:
        """One that is warm."""
        node = ray.get_runtime_context().get_node_id() if self.marks else ""
        return PartDecoder(StandIn(self.speed), settings, Maker("stand-in", {"source": node}))
