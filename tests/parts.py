"""Parts of a service that tests put together themselves: a recognizer to be overridden, and components over it."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from parakeet_stt.audio import Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.engines.silero import SileroDetector
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult, Recognizer, SpeechDetector
from parakeet_stt.server import components
from parakeet_stt.server.components import Components
from parakeet_stt.server.digests import Digests
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis

SERVED = ServedModel("test", ("en",), "test", 0, True, "cpu", "float32", "", Digests("", "", ""))


class FakeRecognizer:
    """A recognizer that a test overrides in part: `protocols.Recognizer` without a model."""

    device, precision, config, frame_samples = "cpu", "float32", "", FRAME_SAMPLES

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """Nothing."""

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        raise AssertionError("no recording was expected")

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        raise AssertionError("no live speech was expected")

    def capacity_seconds(self) -> float | None:
        return None

    def memory_bytes(self) -> float:
        return 0.0


def components_over(
    recognizer: Recognizer,
    thread: ThreadPoolExecutor | None = None,
    *,
    cost: Cost = Cost(0.1, 100),  # noqa: B008  # a value
    detector: SpeechDetector | None = None,
) -> Components:
    """A service over this recognizer. thread: that owns it."""
    settings, metrics = Settings(), Metrics()
    budget = BatchBudget(cost, seconds=settings.max_utterance_seconds, items=settings.max_batch)
    batcher = Batcher(
        recognizer,
        budget,
        thread=thread or ThreadPoolExecutor(1),
        max_waiting=None,
        on_report=metrics.record,
        on_lost=components.exit_on_lost_device,
    )
    return components.build(settings, SERVED, batcher, detector or SileroDetector(), metrics)
