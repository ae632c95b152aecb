"""Opens live sessions: admits each one, runs it on its socket, and counts how it ended."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from starlette.websockets import WebSocket

from parakeet_stt.device.link import DeviceClient
from parakeet_stt.server.http.auth import SUBPROTOCOL
from parakeet_stt.server.http.drain import Drain
from parakeet_stt.server.live.connection import FAILED, IDLE, SLOW_READER, LiveProtocol, run_connection
from parakeet_stt.server.live.live_vad import LiveVad
from parakeet_stt.server.live.stream import LiveOptions, LiveStream
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.server.settings import Settings

logger = logging.getLogger(__name__)
DROPPED = {SLOW_READER: "slow_reader", IDLE: "idle", FAILED: "failed"}  # as metrics name them


class LiveSessions:
    """The live sessions of one process."""

    def __init__(
        self, settings: Settings, live_vad: LiveVad, device: DeviceClient, drain: Drain, metrics: Metrics
    ) -> None:
        self._settings = settings
        self._live_vad = live_vad
        self._device = device
        self._drain = drain
        self._metrics = metrics

    def open_stream(self, options: LiveOptions) -> LiveStream:
        """A stream that runs; to be closed."""
        return LiveStream(options, live_vad=self._live_vad, device=self._device, metrics=self._metrics)

    async def run(
        self, websocket: WebSocket, options: LiveOptions, protocol: Callable[[LiveStream], LiveProtocol]
    ) -> None:
        """Run one session to its end. Raises Overloaded before the socket is accepted."""
        began = time.monotonic()
        with self._drain.session():
            stream = self.open_stream(options)
            try:
                offered = [one for one in websocket.scope.get("subprotocols", ()) if not one.startswith(SUBPROTOCOL)]
                await websocket.accept(subprotocol=offered[0] if offered else None)
                reason = await run_connection(
                    websocket,
                    protocol(stream),
                    self._drain,
                    idle_seconds=self._settings.session_idle_seconds,
                    final_seconds=self._settings.drain_seconds,
                )
            finally:
                await stream.close()
        if reason in DROPPED:
            self._metrics.sessions_dropped.labels(DROPPED[reason]).inc()
        seconds = time.monotonic() - began
        path, received = websocket.url.path, stream.received_seconds
        logger.info("WS %s %d %.0f s, %.1f s of audio", path, reason.code, seconds, received)
