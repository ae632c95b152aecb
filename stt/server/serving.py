"""Knows what one running service consists of, and how an upload goes through it. Does not know routes or BentoML."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import BinaryIO

from stt.audio import Audio
from stt.errors import InvalidField
from stt.recognizer import Recognizer, SpeechDetector
from stt.server.decoding import decode
from stt.server.runner import Runner
from stt.server.settings import Settings
from stt.speech import SpeechRules
from stt.transcriber import Probabilities, Recording, Transcriber

# Above this, attention over the whole recording would need gigabytes: 1.6 GB at five minutes for 0.6B (docs/limits.md).
LONGEST_WHOLE_SECONDS = 300
# Decoding and speech detection are single-threaded C code that releases the GIL.
WORKER_THREADS = 4


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


class Serving:
    """A loaded model, the threads that run it, and the settings that bound it."""

    def __init__(
        self, settings: Settings, model: ServedModel, recognizer: Recognizer, detector: SpeechDetector
    ) -> None:
        self.settings = settings
        self.model = model
        self._detector = detector
        self._runner = Runner(recognizer, max_batch=settings.max_batch)
        self._workers = ThreadPoolExecutor(WORKER_THREADS, thread_name_prefix="media")
        self._transcriber = Transcriber(
            recognize=self._runner.recognize,
            detect=self._detect,
            max_utterance=settings.max_utterance_seconds,
            rules=SpeechRules(onset=settings.vad_threshold, offset=max(settings.vad_threshold - 0.15, 0.01)),
            max_in_flight=settings.max_batch,
        )

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now will be answered."""
        return self._runner.is_alive

    async def transcribe(self, upload: BinaryIO, *, language: str | None = None, cut: bool = True) -> Recording:
        """Decode an uploaded media file and transcribe it.

        language: what the caller says is spoken; else the model's first. cut: False for one pass over the whole.
        Raises AudioError for a bad file, TimeoutError past the request's time limit.
        """
        async with asyncio.timeout(self.settings.request_timeout_seconds):
            loop = asyncio.get_running_loop()
            limit = self.settings.max_audio_seconds
            audio = await loop.run_in_executor(self._workers, lambda: decode(upload, max_seconds=limit))
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
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._workers, self._detector.probabilities, audio)
