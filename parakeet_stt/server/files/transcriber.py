"""Transcribes an upload: media worker → speech detector → utterances → device → words."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, aclosing, asynccontextmanager, contextmanager
from functools import partial
from typing import BinaryIO, TypeVar

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.client import DeviceClient, RecordingQueue
from parakeet_stt.errors import InvalidField, Overloaded
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.filters import Filters
from parakeet_stt.media.pool import MediaReader, MediaSettings, WorkerPool
from parakeet_stt.offline.channels import merge_channels
from parakeet_stt.offline.diarization import Diarization, Reference
from parakeet_stt.offline.transcription import SHORT_SECONDS, Transcription, TranscriptionOptions
from parakeet_stt.offline.utterances import Utterances
from parakeet_stt.offline.vad_segments import SpeechRules
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE
from parakeet_stt.server.files.channels import check_channels, open_again, run_together
from parakeet_stt.server.files.speakers import ReferenceReader
from parakeet_stt.server.files.spoken_language import LanguageDetector
from parakeet_stt.server.monitoring.metrics import Metrics, time_iteration
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.coverage import LoggedSpans
from parakeet_stt.text.transcript import Recording, SpeechCoverage
from parakeet_stt.vad import WINDOW_SAMPLES, Probabilities, offset_for

# Above this, attention over the whole recording would need gigabytes: 1.6 GB at five minutes for 0.6B (docs/limits.md).
LONGEST_UNCUT_SECONDS = 300
DEFAULTS = TranscriptionOptions()
T = TypeVar("T")
logger = logging.getLogger(__name__)


class FileTranscriber:
    """Transcribes uploads, many at once."""

    def __init__(  # the parts of the service that recordings use, each on its own
        self,
        settings: Settings,
        languages: Sequence[str],
        *,
        device: DeviceClient,
        workers: WorkerPool,
        filters: Filters,
        metrics: Metrics,
    ) -> None:
        """languages: of the model. If it has several, the text tells which, unless the caller does."""
        self._settings = settings
        self._language = languages[0] if len(languages) == 1 else None
        self._languages = LanguageDetector(languages)
        self._device = device
        self._workers = workers
        self._metrics = metrics
        self._media = MediaSettings(
            settings.max_audio_seconds, filters.folder, filters.make, on_crash=metrics.decoder_failures.inc
        )
        self._references = ReferenceReader(workers, self._media)
        self._rules = SpeechRules(onset=settings.vad_threshold, offset=offset_for(settings.vad_threshold))

    async def transcribe(self, upload: BinaryIO, options: TranscriptionOptions = DEFAULTS) -> Recording:
        """Transcribe all of an upload; see `open`.

        Raises TimeoutError when it makes no progress for as long as the settings allow.
        """
        if options.separate_channels:
            return await self._transcribe_channels(upload, options)
        async with self.open(upload, options) as transcription:
            return await self._finish(transcription)

    @asynccontextmanager
    async def open(
        self, upload: BinaryIO, options: TranscriptionOptions = DEFAULTS
    ) -> AsyncGenerator[Transcription, None]:
        """Begin to transcribe an upload; leaving the context cancels what is not done.

        upload: has a descriptor. Raises Overloaded. Iterating over the words raises AudioError for a bad file, and
        RecognitionError.
        """
        with _shared_audio() as audio, self._admit(audio) as queue:
            reader = MediaReader(upload.fileno(), audio, self._workers, self._media)
            diarization = await self._diarize(audio, queue, options) if options.speakers else None
            async with self._transcribe_track(reader, audio, queue, options, diarization) as transcription:
                yield transcription

    @property
    def can_read(self) -> bool:
        """Whether files can be decoded now."""
        return self._workers.is_served

    def _report(self, speech: SpeechCoverage) -> None:
        """Count a recording's speech; log where it has no words after second tries, with the request's id."""
        self._metrics.count_speech(speech)
        tried = LoggedSpans()
        tried.add([one for one in speech.uncovered if one.tries > 1])
        if tried.count:
            logger.warning("speech without words, also in second tries: %s", tried)

    def close(self) -> None:
        """End the media workers."""
        self._workers.close()

    async def _finish(self, transcription: Transcription) -> Recording:
        """All of it. Raises TimeoutError."""
        async with aclosing(transcription.words()) as words:
            while True:
                async with asyncio.timeout(self._settings.request_timeout_seconds):
                    if await anext(words, None) is None:
                        break
        return await transcription.recording()

    async def _transcribe_channels(self, upload: BinaryIO, options: TranscriptionOptions) -> Recording:
        """Each channel on its own, at the same time."""
        async with AsyncExitStack() as closing:
            enter = closing.enter_context
            audio = enter(_shared_audio())
            queue = enter(self._admit(audio))
            first = MediaReader(upload.fileno(), audio, self._workers, self._media, channel=0)
            tracks = [await closing.enter_async_context(self._transcribe_track(first, audio, queue, options))]
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                count = await first.count_channels()
            check_channels(count)
            for channel in range(1, count):
                audio = enter(_shared_audio())
                reader = MediaReader(enter(open_again(upload.fileno())), audio, self._workers, self._media, channel)
                beside = enter(queue.beside(audio))
                tracks.append(await closing.enter_async_context(self._transcribe_track(reader, audio, beside, options)))
            recordings = await run_together([self._finish(track) for track in tracks])
        merge = partial(merge_channels, recordings)
        return merge() if recordings[0].transcript.duration <= SHORT_SECONDS else await _run_in_thread(merge)

    async def _diarize(self, audio: SharedAudio, queue: RecordingQueue, options: TranscriptionOptions) -> Diarization:
        """What tells the speakers of a recording, who are known already. Raises InvalidField."""
        layout = queue.speaker_layout
        assert layout is not None, "the form is checked"
        diarization = Diarization(audio, layout, queue.diarize)
        for known in options.known:
            async with asyncio.timeout(self._settings.request_timeout_seconds):
                async with self._references.read(known, queue) as (clip, beside):
                    await diarization.introduce(Reference(known.name, clip, beside.diarize))
        return diarization

    @asynccontextmanager
    async def _transcribe_track(
        self,
        reader: MediaReader,
        audio: SharedAudio,
        queue: RecordingQueue,
        options: TranscriptionOptions,
        diarization: Diarization | None = None,
    ) -> AsyncGenerator[Transcription, None]:
        """Begin to transcribe what the reader reads into `audio`; leaving the context closes the reader."""
        utterances = Utterances(
            diarization.audio if diarization else audio,
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
                detect_language=self._languages.detect,
                phrases=options.phrases,
                on_retry=self._metrics.count_retry,
                on_coverage=self._report,
                is_truncated=lambda: reader.is_truncated,
                diarization=diarization,
            )
        finally:
            self._metrics.audio_seconds.inc(utterances.duration)
            reader.close()

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


@contextmanager
def _shared_audio() -> Iterator[SharedAudio]:
    audio = SharedAudio()
    try:
        yield audio
    finally:
        audio.close()


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
