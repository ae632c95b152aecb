"""Knows what one running service consists of, and how an upload goes through it. Does not know routes or BentoML."""

from __future__ import annotations

import asyncio
import logging
import os
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from prometheus_client import Histogram

from models import resampling
from stt.audio import Audio
from stt.errors import DeviceLost, InvalidField
from stt.recognizer import Priority, Recognizer, SpeechDetector
from stt.server.decoding import decode
from stt.server.metrics import Metrics
from stt.server.pace import Cost, Pace, budget
from stt.server.runner import Runner
from stt.server.settings import Settings
from stt.speech import SpeechRules
from stt.transcriber import Probabilities, Recording, Transcriber

# Above this, attention over the whole recording would need gigabytes: 1.6 GB at five minutes for 0.6B (docs/limits.md).
LONGEST_WHOLE_SECONDS = 300
# Decoding and speech detection are single-threaded C code that releases the GIL. Half of the cores: the others are the
# recognizer's, where it runs on the CPU.
WORKER_THREADS = max(2, (os.cpu_count() or 1) // 2)
# For how long a thread may keep Python to itself while another waits; Python's own is 5 ms. The event loop has to wait
# its turn among the device's thread and those that decode: with 1 ms its lag is half (docs/benchmarks.md).
SWITCH_SECONDS = 0.001
LAST_WORDS_SECONDS = 1.0  # for the answers on their way when the device is lost

T = TypeVar("T")
logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class ServedModel:
    """What is served, as callers may see it. created: unix time of its publication."""

    name: str
    languages: tuple[str, ...]
    owned_by: str
    created: int
    is_demo: bool
    device: str
    precision: str
    config: str


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded recognizer, the thread that loaded it and alone may run it, and what its batches cost.

    room: the padded seconds of audio that the device's memory holds; None if that sets no limit.
    """

    recognizer: Recognizer
    thread: ThreadPoolExecutor
    cost: Cost
    room: float | None
    memory_bytes: Callable[[], float]


class Serving:
    """A loaded model, the threads that run it, and the settings that bound it."""

    def __init__(self, settings: Settings, model: ServedModel, engine: Engine, detector: SpeechDetector) -> None:
        sys.setswitchinterval(SWITCH_SECONDS)
        self.settings = settings
        self.model = model
        self.metrics = Metrics()
        self._detector = detector
        seconds = settings.batch_seconds or budget(
            engine.cost, longest=settings.max_utterance_seconds, room=engine.room
        )
        pace = Pace(engine.cost, seconds=seconds, items=settings.max_batch)
        self._runner = Runner(
            engine.recognizer,
            pace,
            device=engine.thread,
            max_waiting=settings.max_queue_seconds,
            metrics=self.metrics,
            on_lost=_end_process,
        )
        self._workers = ThreadPoolExecutor(
            WORKER_THREADS, thread_name_prefix="media", initializer=resampling.use_one_thread
        )
        self._transcriber = Transcriber(
            recognize=self._runner.recognize,
            detect=self._detect,
            max_utterance=settings.max_utterance_seconds,
            rules=SpeechRules(onset=settings.vad_threshold, offset=max(settings.vad_threshold - 0.15, 0.01)),
        )
        self.metrics.watch("queue_audio_seconds", "Audio that has no answer yet, in seconds.", self._runner.waiting)
        self.metrics.watch("batch_budget_seconds", "Padded seconds that a batch may hold now.",
                           lambda: pace.limits.seconds)  # fmt: skip
        self.metrics.watch("device_memory_bytes", "Memory in use on the device.", engine.memory_bytes)
        logger.info("batches of up to %.0f s; %.0f x real time", seconds, engine.cost.speed)

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now will be answered."""
        return self._runner.is_alive

    async def transcribe(self, upload: BinaryIO, *, language: str | None = None, cut: bool = True) -> Recording:
        """Decode an uploaded media file and transcribe it.

        language: what the caller says is spoken; else the model's first. cut: False for one pass over the whole.
        Raises AudioError for a bad file, Overloaded, TimeoutError past the request's time limit.
        """
        self._runner.admit(Priority.SHORT)  # again in the runner, with the real priority
        async with asyncio.timeout(self.settings.request_timeout_seconds):
            limit = self.settings.max_audio_seconds
            audio = await self._timed(self.metrics.decode_seconds, lambda: decode(upload, max_seconds=limit))
            self.metrics.audio_seconds.inc(audio.duration)
            if not cut and audio.duration > LONGEST_WHOLE_SECONDS:
                raise InvalidField(
                    f"should_chunk=false takes at most {LONGEST_WHOLE_SECONDS} s of audio, not {audio.duration:.0f} s",
                    param="should_chunk",
                )
            return await self._transcriber.transcribe(audio, language=language or self.model.languages[0], cut=cut)

    def close(self) -> None:
        """End all threads, after what they are at."""
        self._workers.shutdown(cancel_futures=True)
        self._runner.close()

    async def _detect(self, audio: Audio) -> Probabilities:
        return await self._timed(self.metrics.detect_seconds, lambda: self._detector.probabilities(audio))

    async def _timed(self, histogram: Histogram, work: Callable[[], T]) -> T:
        """The result of `work` in a thread; what it took there, without the wait for a thread, is counted."""

        def timed() -> T:
            began = time.perf_counter()
            result = work()
            histogram.observe(time.perf_counter() - began)
            return result

        return await asyncio.get_running_loop().run_in_executor(self._workers, timed)


def _end_process(lost: DeviceLost) -> None:
    """End this process, so that whoever runs it starts a new one: only that can use the device again."""
    logger.critical("the device is lost, the process ends: %s", lost.message)
    threading.Timer(LAST_WORDS_SECONDS, os._exit, (1,)).start()
