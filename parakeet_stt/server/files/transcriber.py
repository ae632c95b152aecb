"""Transcribes an upload: media workers → speech detector → utterances → device → words."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing, asynccontextmanager
from typing import BinaryIO, TypeVar

from parakeet_stt.audio import SAMPLE_RATE, Samples
from parakeet_stt.device.link import DeviceClient
from parakeet_stt.errors import InvalidField
from parakeet_stt.media.pool import MediaReader, WorkerPool
from parakeet_stt.media.threads import CpuSlots, lower_priority
from parakeet_stt.offline.transcription import Transcription, TranscriptionOptions
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import SpeechDetector
from parakeet_stt.server.metrics import Metrics, TimedStream, time_iteration
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.transcript import Recording
from parakeet_stt.vad import offset_for

# Above this, attention over the whole recording would need gigabytes: 1.6 GB at five minutes for 0.6B (docs/limits.md).
LONGEST_UNCUT_SECONDS = 300
# Threads that resample and detect speech at once, in C code that releases Python's lock. Half of the cores; the others
# are the recognizer's, where it runs on the CPU.
COMPUTING_THREADS = max(2, (os.cpu_count() or 1) // 2)
# Recordings that are read at once, each by a thread that mostly waits for its media worker. A worker that stalls is
# ended after half a minute; it takes this many stalled ones to keep other recordings waiting.
READING_THREADS = 64
DEFAULTS = TranscriptionOptions()

T = TypeVar("T")


class FileTranscriber:
    """Transcribes uploads, many at once."""

    def __init__(
        self, settings: Settings, language: str, device: DeviceClient, detector: SpeechDetector, metrics: Metrics
    ) -> None:
        """language: of transcripts whose caller names none."""
        self._settings = settings
        self._language = language
        self._device = device
        self._detector = detector
        self._metrics = metrics
        self._workers = WorkerPool()
        self._slots = CpuSlots(COMPUTING_THREADS)
        self._threads = ThreadPoolExecutor(READING_THREADS, thread_name_prefix="media", initializer=lower_priority)
        self._rules = SpeechRules(onset=settings.vad_threshold, offset=offset_for(settings.vad_threshold))

    async def transcribe(self, upload: BinaryIO, options: TranscriptionOptions = DEFAULTS) -> Recording:
        """Transcribe all of an upload; see `open`.

        Raises TimeoutError when it makes no progress for as long as the settings allow.
        """
        async with self.open(upload, options) as transcription:
            async with aclosing(transcription.words()) as words:
                while True:
                    async with asyncio.timeout(self._settings.request_timeout_seconds):
                        if await anext(words, None) is None:
                            break
            return await transcription.recording()

    @asynccontextmanager
    async def open(
        self, upload: BinaryIO, options: TranscriptionOptions = DEFAULTS
    ) -> AsyncGenerator[Transcription, None]:
        """Begin to transcribe an upload; leaving the context cancels what is not done.

        Raises Overloaded. Iterating over the words raises AudioError for a bad file, and RecognitionError.
        """
        with self._device.recording() as queue:
            reader = MediaReader(
                upload,
                self._workers,
                self._slots,
                max_seconds=self._settings.max_audio_seconds,
                on_crash=self._metrics.decoder_failures.inc,
            )
            utterances = self._find_utterances(reader, options)
            is_reading = threading.Lock()

            async def run_in_thread(work: Callable[[], T]) -> T:
                def compute() -> T:
                    with is_reading, self._slots.computing():
                        return work()

                return await asyncio.get_running_loop().run_in_executor(self._threads, compute)

            try:
                yield Transcription(
                    utterances,
                    recognize=queue.recognize,
                    run_in_thread=run_in_thread,
                    language=options.language or self._language,
                    phrases=options.phrases,
                    on_retry=self._metrics.count_retry,
                    is_truncated=lambda: reader.is_truncated,
                )
            finally:
                self._metrics.audio_seconds.inc(utterances.duration)
                reader.cancel()

                def close() -> None:
                    with is_reading:
                        utterances.close()
                        reader.close()

                if is_reading.locked():  # a thread still reads for a caller who has disconnected
                    self._threads.submit(close)
                else:
                    close()

    def close(self) -> None:
        """End all threads and media workers, after what they are doing."""
        self._threads.shutdown(cancel_futures=True)
        self._workers.close()

    def _find_utterances(self, reader: MediaReader, options: TranscriptionOptions) -> Utterances:
        blocks = time_iteration(reader, self._metrics.decode_seconds)
        return Utterances(
            blocks if options.is_cut else _limit_length(blocks),
            TimedStream(self._detector.stream(), self._metrics.detect_seconds),
            rules=options.rules or self._rules,
            longest=self._settings.max_utterance_seconds if options.is_cut else None,
            short_first=options.short_first,
        )


def _limit_length(blocks: Iterator[Samples]) -> Iterator[Samples]:
    """The same blocks; raises InvalidField once they are too much for one pass."""
    samples = 0
    for block in blocks:
        samples += len(block)
        if samples > LONGEST_UNCUT_SECONDS * SAMPLE_RATE:
            raise InvalidField(
                f"should_chunk=false takes at most {LONGEST_UNCUT_SECONDS} s of audio", param="should_chunk"
            )
        yield block
