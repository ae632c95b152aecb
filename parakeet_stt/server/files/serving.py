"""Knows what one running service consists of, and how an upload goes through it. Does not know routes or BentoML."""

from __future__ import annotations

import asyncio
import logging
import os
import secrets
import sys
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, TypeVar

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.device.batch_budget import Cost, Pace, budget
from parakeet_stt.device.batcher import Runner
from parakeet_stt.errors import DeviceLost, InvalidField
from parakeet_stt.media import resampling
from parakeet_stt.media.cpu_slots import Turns
from parakeet_stt.media.pool import Decoders, Media
from parakeet_stt.offline.transcription import Options, Recording, Transcription
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import LiveRecognizer, Priority, SpeechDetector
from parakeet_stt.server.digests import Digests
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.http.drain import Occupancy
from parakeet_stt.server.live.live_vad import Hearing
from parakeet_stt.server.live.stream import Live, LiveOptions
from parakeet_stt.server.metrics import Metrics, TimedStream, timed
from parakeet_stt.server.settings import Settings

# Above this, attention over the whole recording would need gigabytes: 1.6 GB at five minutes for 0.6B (docs/limits.md).
LONGEST_WHOLE_SECONDS = 300
# Threads that resample and detect speech at once: single-threaded C code that releases the GIL. Half of the cores; the
# others are the recognizer's, where it runs on the CPU.
AT_WORK = max(2, (os.cpu_count() or 1) // 2)
# Recordings that are being read at once, each by a thread that mostly waits for its decoder. One decoder that stalls
# takes half a minute to be given up; it takes as many as this to keep others waiting.
READERS = 64
# For how long a thread may keep Python to itself while another waits; Python's own is 5 ms. The event loop has to wait
# its turn among the device's thread and those that decode: with 1 ms its lag is half (docs/benchmarks.md).
SWITCH_SECONDS = 0.001
DEFAULTS = Options()
MEDIA_NICENESS = 10  # a tenth of the share of a thread at 0
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
    digests: Digests


@dataclass(frozen=True, slots=True)
class Engine:
    """A loaded recognizer, the thread that loaded it and alone may run it, and what its batches cost.

    room: the padded seconds of audio that the device's memory holds; None if that sets no limit.
    """

    recognizer: LiveRecognizer
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
        self.occupancy = Occupancy(settings.max_sessions, self.metrics)
        signing_key = settings.signing_key.get_secret_value() if settings.signing_key else secrets.token_hex()
        self.client_secrets = ClientSecrets(signing_key.encode())
        self._hearing = Hearing(detector, start=_become_media_thread)
        self._decoders = Decoders()
        self._turns = Turns(AT_WORK)
        self._workers = ThreadPoolExecutor(READERS, thread_name_prefix="media", initializer=_become_media_thread)
        self._rules = SpeechRules(onset=settings.vad_threshold, offset=SpeechRules.offset_for(settings.vad_threshold))
        self.metrics.queue_audio_seconds.set_function(self._runner.waiting)
        self.metrics.batch_budget_seconds.set_function(lambda: pace.limits.seconds)
        self.metrics.device_memory_bytes.set_function(engine.memory_bytes)
        logger.info("batches of up to %.0f s; %.0f x real time", seconds, engine.cost.speed)

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now will be answered."""
        return self._runner.is_alive and not self.occupancy.ending.is_set()

    def live(self, options: LiveOptions) -> Live:
        """A session that hears sound while it is spoken; to be closed."""
        return Live(options, hearing=self._hearing, runner=self._runner, metrics=self.metrics)

    async def transcribe(self, upload: BinaryIO, options: Options = DEFAULTS) -> Recording:
        """Decode an uploaded media file and transcribe all of it; see `transcription`.

        Raises TimeoutError when it gets no further for as long as the settings allow.
        """
        async with self.transcription(upload, options) as transcription:
            async with aclosing(transcription.words()) as words:
                while True:
                    async with asyncio.timeout(self.settings.request_timeout_seconds):
                        if await anext(words, None) is None:
                            break
            return await transcription.recording()

    @asynccontextmanager
    async def transcription(self, upload: BinaryIO, options: Options = DEFAULTS) -> AsyncGenerator[Transcription, None]:
        """An uploaded media file on its way to text; leaving the context gives up what is not done.

        Iterating over its words raises AudioError for a bad file, Overloaded, RecognitionError.
        """
        self._runner.admit(Priority.SHORT)  # again in the runner, with the real priority
        media = Media(
            upload,
            self._decoders,
            self._turns,
            max_seconds=self.settings.max_audio_seconds,
            on_crash=self.metrics.decoder_failures.inc,
        )
        blocks = timed(media, self.metrics.decode_seconds)
        utterances = Utterances(
            blocks if options.cut else _short_enough(blocks),
            TimedStream(self._detector.stream(), self.metrics.detect_seconds),
            rules=options.rules or self._rules,
            longest=self.settings.max_utterance_seconds if options.cut else None,
            soon=options.soon,
        )
        reading = threading.Lock()

        async def in_thread(work: Callable[[], T]) -> T:
            def alone() -> T:
                with reading, self._turns.working():
                    return work()

            return await asyncio.get_running_loop().run_in_executor(self._workers, alone)

        try:
            yield Transcription(
                utterances,
                recognize=self._runner.recognize,
                in_thread=in_thread,
                language=options.language or self.model.languages[0],
                phrases=options.phrases,
                on_rescue=self.metrics.rescue,
                is_truncated=lambda: media.is_truncated,
            )
        finally:
            self.metrics.audio_seconds.inc(utterances.duration)
            media.give_up()

            def close() -> None:
                with reading:
                    utterances.close()
                    media.close()

            if reading.locked():  # a thread is at it, for a caller who has left
                self._workers.submit(close)
            else:
                close()

    def close(self) -> None:
        """End all threads and processes, after what they are at."""
        self._workers.shutdown(cancel_futures=True)
        self._hearing.close()
        self._runner.close()
        self._decoders.close()


def _become_media_thread() -> None:
    """Use no other threads, and give way to the recognizer's: each of its steps waits for the last of them."""
    resampling.use_one_thread()
    if sys.platform == "linux":  # where a thread has a niceness of its own
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), MEDIA_NICENESS)


def _short_enough(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """The same; raises InvalidField once they are too much for one pass."""
    samples = 0
    for block in blocks:
        samples += len(block)
        if samples > LONGEST_WHOLE_SECONDS * SAMPLE_RATE:
            raise InvalidField(
                f"should_chunk=false takes at most {LONGEST_WHOLE_SECONDS} s of audio", param="should_chunk"
            )
        yield block


def _end_process(lost: DeviceLost) -> None:
    """End this process, so that whoever runs it starts a new one: only that can use the device again."""
    logger.critical("the device is lost, the process ends: %s", lost.message)
    threading.Timer(LAST_WORDS_SECONDS, os._exit, (1,)).start()
