"""Transcribes an upload: media worker → speech detector → utterances → device → words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import ExitStack, aclosing, asynccontextmanager, contextmanager
from typing import BinaryIO, TypeVar

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.client import DeviceClient, RecordingQueue
from parakeet_stt.errors import InvalidField, Overloaded
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.filters import Filters
from parakeet_stt.media.pool import MediaReader, MediaSettings, WorkerPool
from parakeet_stt.offline.transcription import Transcription, TranscriptionOptions
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE
from parakeet_stt.server.monitoring.metrics import Metrics, time_iteration
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.transcript import Recording, SpeechCoverage
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities, offset_for

# Above this, attention over the whole recording would need gigabytes: 1.6 GB at five minutes for 0.6B (docs/limits.md).
LONGEST_UNCUT_SECONDS = 300
LOGGED_SPANS = 5
DEFAULTS = TranscriptionOptions()
T = TypeVar("T")
logger = logging.getLogger(__name__)


class FileTranscriber:
    """Transcribes uploads, many at once."""

    def __init__(  # the parts of the service that recordings use, each on its own
        self,
        settings: Settings,
        language: str,
        *,
        device: DeviceClient,
        workers: WorkerPool,
        filters: Filters,
        metrics: Metrics,
    ) -> None:
        """language: of transcripts whose caller names none."""
        self._settings = settings
        self._language = language
        self._device = device
        self._workers = workers
        self._metrics = metrics
        self._media = MediaSettings(
            settings.max_audio_seconds, filters.folder, filters.make, on_crash=metrics.decoder_failures.inc
        )
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

        upload: has a descriptor. Raises Overloaded. Iterating over the words raises AudioError for a bad file, and
        RecognitionError.
        """
        audio = SharedAudio()
        try:
            with self._admit(audio) as queue:
                reader = MediaReader(upload.fileno(), audio, self._workers, self._media)
                utterances = Utterances(
                    audio,
                    rules=options.rules or self._rules,
                    longest=self._settings.max_utterance_seconds if options.is_cut else None,
                    short_first=options.short_first,
                )
                try:
                    yield Transcription(
                        utterances,
                        _detect(self._read(reader, audio, options), audio, queue),
                        recognize=queue.recognize,
                        run_in_thread=_run_in_thread,
                        language=options.language or self._language,
                        phrases=options.phrases,
                        on_retry=self._metrics.count_retry,
                        on_coverage=self._report,
                        is_truncated=lambda: reader.is_truncated,
                    )
                finally:
                    self._metrics.audio_seconds.inc(utterances.duration)
                    reader.close()
        finally:
            audio.close()

    def _report(self, speech: SpeechCoverage) -> None:
        """Count a recording's speech; log where it has no words after second tries, with the request's id."""
        self._metrics.count_speech(speech)
        tried = [one for one in speech.uncovered if one.tries > 1]
        if tried:
            places = ", ".join(f"{one.start:.2f} to {one.end:.2f} s" for one in tried[:LOGGED_SPANS])
            more = f", and {len(tried) - LOGGED_SPANS} more" if len(tried) > LOGGED_SPANS else ""
            logger.warning("speech without words, also in second tries: %s%s", places, more)

    def close(self) -> None:
        """End the media workers."""
        self._workers.close()

    @contextmanager
    def _admit(self, audio: SharedAudio) -> Iterator[RecordingQueue]:
        with ExitStack() as admitted:
            try:
                queue = admitted.enter_context(self._device.recording(audio))
            except Overloaded:
                self._metrics.refused.inc()
                raise
            yield queue

    async def _read(
        self, reader: MediaReader, audio: SharedAudio, options: TranscriptionOptions
    ) -> AsyncIterator[Probabilities | None]:
        """The reader's blocks. Raises InvalidField once they are too much for one pass, where one is asked for."""
        async for found in time_iteration(reader.blocks(), self._metrics.decode_seconds):
            if not options.is_cut and audio.length > LONGEST_UNCUT_SECONDS * SAMPLE_RATE:
                raise InvalidField(
                    f"should_chunk=false takes at most {LONGEST_UNCUT_SECONDS} s of audio", param="should_chunk"
                )
            yield found


async def _run_in_thread(work: Callable[[], T]) -> T:
    return await asyncio.to_thread(work)


async def _detect(
    blocks: AsyncIterator[Probabilities | None], audio: SharedAudio, queue: RecordingQueue
) -> AsyncIterator[Probabilities]:
    """The probabilities of each block: those of the media worker, or else the device's."""
    detected, states = 0, np.zeros((1, *DETECTOR_STATE_SHAPE), np.float32)  # samples, and the state after them
    async for found in blocks:
        if found is None:  # all blocks but the last are whole windows
            windows = -(-(audio.length - detected) // WINDOW_SAMPLES)
            found, states = await queue.detect(detected, windows, states)
            detected += windows * WINDOW_SAMPLES
        yield found
