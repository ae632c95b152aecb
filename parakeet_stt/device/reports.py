"""What a device reports while it works, as values: for metrics, on whichever side of the link they are."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from enum import Enum, auto


class DeviceEvent(Enum):
    """Something that is counted."""

    OUT_OF_MEMORY = auto()  # a batch
    RECOGNITION_ERROR = auto()  # an utterance or chunk that the model failed on


@dataclass(frozen=True, slots=True)
class WaitReport:
    """How long each item of a batch waited in the queue, in seconds."""

    seconds: tuple[float, ...]


@dataclass(frozen=True, slots=True)
class BatchReport:
    """A decoded batch. items: utterances or chunks. audio, padded: seconds of audio without and with the padding.

    seconds: that decoding took.
    """

    items: int
    audio: float
    padded: float
    seconds: float


@dataclass(frozen=True, slots=True)
class DiarizeReport:
    """A batch whose speakers were told apart. audio: seconds of audio, context included. seconds: that it took."""

    audio: float
    seconds: float


Report = DeviceEvent | WaitReport | BatchReport | DiarizeReport
OnReport = Callable[[Report], None]
