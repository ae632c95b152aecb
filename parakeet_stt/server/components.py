"""Builds the parts of a running service, and ends them. service.py calls it; routes depend on the parts."""

from __future__ import annotations

import logging
import os
import secrets
import sys
import threading
from dataclasses import dataclass

from parakeet_stt.device.link import Device, DeviceClient
from parakeet_stt.errors import DeviceLost
from parakeet_stt.protocols import SpeechDetector
from parakeet_stt.server.files.transcriber import FileTranscriber
from parakeet_stt.server.http.client_secrets import ClientSecrets
from parakeet_stt.server.http.drain import Drain
from parakeet_stt.server.http.middleware import RequestContext
from parakeet_stt.server.live.live_vad import LiveVad
from parakeet_stt.server.live.sessions import LiveSessions
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.settings import Settings

logger = logging.getLogger(__name__)
# For how long a thread may keep Python's lock while another waits; Python's own is 5 ms. The event loop competes with
# the device's thread and those that read media: with 1 ms its lag is half (docs/benchmarks.md).
SWITCH_SECONDS = 0.001
LAST_ANSWERS_SECONDS = 1.0  # for the answers that are being sent when the device is lost


@dataclass(frozen=True, slots=True)
class Components:
    """The parts of a running service."""

    settings: Settings
    model: ServedModel
    metrics: Metrics
    drain: Drain
    client_secrets: ClientSecrets
    device: DeviceClient
    transcriber: FileTranscriber
    sessions: LiveSessions
    link: Device
    live_vad: LiveVad

    @property
    def is_alive(self) -> bool:
        """Whether a request that comes now will be answered."""
        return self.device.is_alive and not self.drain.started.is_set()

    @property
    def request_context(self) -> RequestContext:
        """What the middleware uses."""
        return RequestContext(
            self.settings, self.model, self.metrics, self.drain, self.client_secrets, lambda: self.is_alive
        )

    def close(self) -> None:
        """End all threads and processes, after what they are doing."""
        self.transcriber.close()
        self.live_vad.close()
        self.link.close()


def build(
    settings: Settings, model: ServedModel, link: Device, detector: SpeechDetector, metrics: Metrics
) -> Components:
    """Build the parts around a device that has been started. metrics: those that the device reports to."""
    sys.setswitchinterval(SWITCH_SECONDS)
    metrics.queue_audio_seconds.set_function(link.waiting_seconds)
    metrics.batch_budget_seconds.set_function(lambda: link.batch_seconds)
    metrics.device_memory_bytes.set_function(link.memory_bytes)
    device, live_vad, drain = DeviceClient(link), LiveVad(detector), Drain(settings.max_sessions, metrics)
    signing_key = settings.signing_key.get_secret_value() if settings.signing_key else secrets.token_hex()
    return Components(
        settings=settings,
        model=model,
        metrics=metrics,
        drain=drain,
        client_secrets=ClientSecrets(signing_key.encode()),
        device=device,
        transcriber=FileTranscriber(settings, model.languages[0], device, detector, metrics),
        sessions=LiveSessions(settings, live_vad, device, drain, metrics),
        link=link,
        live_vad=live_vad,
    )


def exit_on_lost_device(lost: DeviceLost) -> None:
    """End this process, so that its supervisor starts a new one: only a new process can use the device again."""
    logger.critical("the device is lost, the process ends: %s", lost.message)
    threading.Timer(LAST_ANSWERS_SECONDS, os._exit, (1,)).start()
