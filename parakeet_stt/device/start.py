"""Starts a device: loads an engine in the thread that is to own it, warms it up, and measures what batches cost."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

from parakeet_stt.device.batch_budget import BatchBudget, full_batch_seconds, measure_cost
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.device.link import Device
from parakeet_stt.device.reports import OnReport
from parakeet_stt.errors import DeviceLost, StartupError
from parakeet_stt.protocols import FRAME_SAMPLES, Engine, SpeechDetector

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class DeviceLimits:
    """What the operator sets.

    max_items: utterances in a batch. max_utterance_seconds: of the longest utterance. batch_seconds: padded seconds in
    a batch; None to measure. max_waiting_seconds: of audio in the queue; None for the batcher's own rule.
    """

    max_items: int
    max_utterance_seconds: float
    batch_seconds: float | None = None
    max_waiting_seconds: float | None = None


@dataclass(frozen=True, slots=True)
class StartedDevice:
    """A device that takes work. device_name, precision, config: see `Recognizer`."""

    link: Device
    detector: SpeechDetector
    device_name: str
    precision: str
    config: str


def start_device(
    load: Callable[[], Engine],
    limits: DeviceLimits,
    *,
    on_report: OnReport,
    on_lost: Callable[[DeviceLost], None],
) -> StartedDevice:
    """Start a device in a thread of its own. load: called in that thread. on_report, on_lost: see `Batcher`.

    Raises StartupError.
    """
    thread = ThreadPoolExecutor(1, thread_name_prefix="device")

    def prepare() -> tuple[Engine, BatchBudget]:
        engine = load()
        recognizer = engine.recognizer
        if recognizer.frame_samples != FRAME_SAMPLES:
            raise StartupError(f"the model's frames have {recognizer.frame_samples} samples, not {FRAME_SAMPLES}")
        recognizer.warm_up(limits.max_items, limits.max_utterance_seconds)
        cost = measure_cost(recognizer, most_items=limits.max_items)
        seconds = limits.batch_seconds or full_batch_seconds(
            cost, longest=limits.max_utterance_seconds, capacity=recognizer.capacity_seconds()
        )
        logger.info("batches of up to %.0f s; %.0f x real time", seconds, cost.speed)
        return engine, BatchBudget(cost, seconds=seconds, items=limits.max_items)

    try:
        engine, budget = thread.submit(prepare).result()
    except BaseException:
        thread.shutdown()
        raise
    recognizer = engine.recognizer
    batcher = Batcher(
        recognizer,
        budget,
        thread=thread,
        max_waiting=limits.max_waiting_seconds,
        on_report=on_report,
        on_lost=on_lost,
    )
    return StartedDevice(batcher, engine.detector, recognizer.device, recognizer.precision, recognizer.config)
