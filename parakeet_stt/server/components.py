"""Builds the parts of a running front, and ends them. service.py calls it; routes depend on the parts."""

from __future__ import annotations

import asyncio
import os
import secrets
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from parakeet_stt.device.client import DeviceClient
from parakeet_stt.ipc.limits import memory_bytes
from parakeet_stt.media.filters import Filters
from parakeet_stt.media.pool import WorkerPool
from parakeet_stt.protocols import SpeechDetector
from parakeet_stt.server.files.transcriber import FileTranscriber
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.http.drain import Drain
from parakeet_stt.server.http.middleware import RequestContext
from parakeet_stt.server.live.live_vad import LiveDetector, LiveVad, LocalDetector, RemoteDetector
from parakeet_stt.server.live.sessions import LiveSessions
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import Settings

PARENT_SECONDS = 1.0  # between two looks at whether the service's parent is still there


@dataclass(frozen=True, slots=True)
class Processes:
    """The other processes, as a front sees them.

    media: socket of the media program. filters: folder of the resampling filters. detector: for live speech, where no
    device process has one.
    """

    device: DeviceClient
    media: Path
    filters: Path
    detector: SpeechDetector | None


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of a running front."""

    settings: Settings
    model: ServedModel
    metrics: Metrics
    drain: Drain
    client_secrets: ClientSecrets
    device: DeviceClient
    transcriber: FileTranscriber
    sessions: LiveSessions
    live_vad: LiveVad

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now will be answered soon."""
        return self.device.is_alive and self.transcriber.can_read and not self.drain.started.is_set()

    @property
    def request_context(self) -> RequestContext:
        """What the middleware uses."""
        return RequestContext(
            self.settings, self.model, self.metrics, self.drain, self.client_secrets, lambda: self.is_alive
        )

    @asynccontextmanager
    async def running(self) -> AsyncIterator[None]:
        """While the context lasts, the front exchanges messages with the other processes."""
        self.device.start()
        self.metrics.on_exposition = lambda: self.metrics.queue_audio_seconds.set(self.device.waiting_seconds())
        watching = asyncio.create_task(_end_with_parent())
        try:
            yield
        finally:
            watching.cancel()
            self.transcriber.close()
            self.device.close()

    def close(self) -> None:
        """End the threads, after what they are doing."""
        self.live_vad.close()


def build(settings: Settings, model: ServedModel, processes: Processes, metrics: Metrics) -> Components:
    """Build the parts around processes that are running."""
    device, filters = processes.device, Filters(processes.filters, processes.device.make_filter)
    detector: LiveDetector = LocalDetector(processes.detector) if processes.detector else RemoteDetector()
    live_vad, drain = LiveVad(detector), Drain(metrics)
    signing_key = settings.signing_key.get_secret_value() if settings.signing_key else secrets.token_hex()
    # Media workers that compute at once, of all fronts: half of the cores. The others are the recognizer's, where it
    # runs on the CPU.
    computing = max(2, (os.cpu_count() or 1) // 2 // settings.fronts_here)
    return Components(
        settings=settings,
        model=model,
        metrics=metrics,
        drain=drain,
        client_secrets=ClientSecrets(signing_key.encode()),
        device=device,
        transcriber=FileTranscriber(
            settings,
            model.languages,
            device=device,
            workers=WorkerPool(
                processes.media, computing=computing, memory=memory_bytes() // 2 // settings.fronts_here
            ),
            filters=filters,
            metrics=metrics,
        ),
        sessions=LiveSessions(
            settings, live_vad=live_vad, filters=filters, device=device, drain=drain, metrics=metrics
        ),
        live_vad=live_vad,
    )


async def _end_with_parent() -> None:
    """Shut this front down when the service's parent is gone, which would have done so."""
    parent = os.getppid()
    while os.getppid() == parent:  # noqa: ASYNC110  # the kernel sets no event
        await asyncio.sleep(PARENT_SECONDS)
    os.kill(os.getpid(), signal.SIGTERM)
