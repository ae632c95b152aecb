"""Starts a device: loads an engine, warms it up, and measures what batches cost."""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass

from parakeet_stt.device.batch_budget import BatchBudget, full_batch_seconds, measure_cost
from parakeet_stt.errors import StartupError
from parakeet_stt.protocols import FRAME_SAMPLES, Recognizer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BatchSettings:
    """What the operator sets.

    max_items: utterances in a batch. max_utterance_seconds: of the longest utterance. batch_seconds: padded seconds in
    a batch; None to measure.
    """

    max_items: int
    max_utterance_seconds: float
    batch_seconds: float | None = None


def prepare(recognizer: Recognizer, settings: BatchSettings) -> BatchBudget:
    """Warm a loaded recognizer up, and measure how large its batches should be. Raises StartupError."""
    if recognizer.frame_samples != FRAME_SAMPLES:
        raise StartupError(f"the model's frames have {recognizer.frame_samples} samples, not {FRAME_SAMPLES}")
    began = time.monotonic()
    recognizer.warm_up(settings.max_items, settings.max_utterance_seconds)
    logger.info("warmed up in %.1f s", time.monotonic() - began)
    cost = measure_cost(recognizer, most_items=settings.max_items)
    seconds = settings.batch_seconds or full_batch_seconds(
        cost, longest=settings.max_utterance_seconds, capacity=recognizer.capacity_seconds()
    )
    logger.info("batches of up to %.0f s; %.0f x real time", seconds, cost.speed)
    return BatchBudget(cost, seconds=seconds, items=settings.max_items)
