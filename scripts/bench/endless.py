"""The service over a device of endless speed, which gives three tokens a second at once: for host.py.

bentoml serve scripts.bench.endless:ParakeetSTT
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor

import service
from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost, full_batch_seconds
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.device.reports import OnReport
from parakeet_stt.device.start import DeviceLimits, StartedDevice
from parakeet_stt.errors import DeviceLost
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult, Engine
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token

PIECES = ("▁the", "▁quick", "▁brown", "▁fox", ".")
TOKENS_PER_SECOND = 3
COST = Cost(overhead=60.0, speed=12_000.0)  # of a GPU of this kind, so that batches have its sizes


def tokens_of(seconds: float) -> tuple[Token, ...]:
    """Tokens at fixed places of any audio of this length."""
    count, step = int(seconds * TOKENS_PER_SECOND), 1 / TOKENS_PER_SECOND
    return tuple(Token(i % 5, PIECES[i % 5], i * step, i * step + 0.24, -0.1) for i in range(count))


class EndlessRecognizer:
    """A recognizer that answers at once; see `protocols.Recognizer`."""

    device, precision, config, frame_samples = "endless", "none", "endless: true", FRAME_SAMPLES

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """There is nothing to warm up."""

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Three tokens a second for each utterance."""
        return [Hypothesis(tokens_of(audio.duration)) for audio in batch]

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        """Three tokens a second for each chunk, divided where its right context begins."""
        results = []
        for chunk in batch:
            tokens = tokens_of(chunk.audio.duration)
            start = chunk.left_context / SAMPLE_RATE
            end = (len(chunk.audio.samples) - chunk.right_context) / SAMPLE_RATE
            stable = tuple(token for token in tokens if start <= token.start < end)
            results.append(ChunkResult(stable, tuple(token for token in tokens if token.start >= end), True))
        return results

    def capacity_seconds(self) -> float | None:
        """Without limit."""
        return None

    def memory_bytes(self) -> float:
        """None."""
        return 0.0


def start_endless(
    load: Callable[[], Engine],  # not called
    limits: DeviceLimits,
    *,
    on_report: OnReport,
    on_lost: Callable[[DeviceLost], None],
) -> StartedDevice:
    """`start_device` with this recognizer in place of a loaded one."""
    from parakeet_stt.engines.silero import SileroDetector

    seconds = full_batch_seconds(COST, longest=limits.max_utterance_seconds, capacity=None)
    batcher = Batcher(
        EndlessRecognizer(),
        BatchBudget(COST, seconds=seconds, items=limits.max_items),
        thread=ThreadPoolExecutor(1, thread_name_prefix="device"),
        max_waiting=limits.max_waiting_seconds,
        on_report=on_report,
        on_lost=on_lost,
    )
    return StartedDevice(batcher, SileroDetector(), "endless", "none", "endless: true")


service.start_device = start_endless  # type: ignore[attr-defined]
ParakeetSTT = service.ParakeetSTT
