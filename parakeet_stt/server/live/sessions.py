"""Opens live sessions: admits each one, runs it on its socket, and counts how it ended."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress

from starlette.websockets import WebSocket, WebSocketDisconnect

from parakeet_stt.device.client import DeviceClient
from parakeet_stt.errors import Overloaded, ShuttingDown
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.filters import Filters
from parakeet_stt.server.http.auth import SUBPROTOCOL
from parakeet_stt.server.http.drain import LAST_SECONDS, Drain
from parakeet_stt.server.live.connection import (
    FAILED,
    GOING_AWAY,
    IDLE,
    SLOW_READER,
    LiveProtocol,
    run_connection,
)
from parakeet_stt.server.live.live_vad import LiveVad
from parakeet_stt.server.live.stream import LiveOptions, LiveStream
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import Settings

logger = logging.getLogger(__name__)
DROPPED = {SLOW_READER: "slow_reader", IDLE: "idle", FAILED: "failed"}  # as metrics name them


class LiveSessions:
    """The live sessions of one process."""

    def __init__(  # the parts of the service that sessions use, each on its own
        self,
        settings: Settings,
        *,
        live_vad: LiveVad,
        filters: Filters,
        device: DeviceClient,
        drain: Drain,
        metrics: Metrics,
    ) -> None:
        self._settings = settings
        self._live_vad = live_vad
        self._filters = filters
        self._device = device
        self._drain = drain
        self._metrics = metrics

    @asynccontextmanager
    async def open_stream(self, options: LiveOptions) -> AsyncIterator[LiveStream]:
        """A stream that runs while the context lasts. Raises Overloaded if too many sessions are open."""
        audio = SharedAudio()
        try:
            with self._device.session(audio) as queue:
                stream = LiveStream(
                    options,
                    queue=queue,
                    live_vad=self._live_vad,
                    filters=self._filters,
                    metrics=self._metrics,
                    context_seconds=self._settings.live_context_seconds,
                )
                try:
                    yield stream
                finally:
                    stream.close()
        finally:
            audio.close()

    async def run(
        self, websocket: WebSocket, options: LiveOptions, protocol: Callable[[LiveStream], LiveProtocol]
    ) -> None:
        """Run one session to its end. Raises Overloaded before the socket is accepted."""
        try:
            async with self._drain.session():
                await self._run(websocket, options, protocol)
        except ShuttingDown:
            logger.warning("WS %s ends with the service, unfinished", websocket.url.path)
            with suppress(RuntimeError, WebSocketDisconnect, TimeoutError):
                async with asyncio.timeout(LAST_SECONDS):
                    await websocket.close(GOING_AWAY.code, GOING_AWAY.reason)

    async def _run(
        self, websocket: WebSocket, options: LiveOptions, protocol: Callable[[LiveStream], LiveProtocol]
    ) -> None:
        began = time.monotonic()
        async with AsyncExitStack() as closing:
            try:
                stream = await closing.enter_async_context(self.open_stream(options))
            except Overloaded:
                self._metrics.sessions_refused.inc()
                raise
            offered = [one for one in websocket.scope.get("subprotocols", ()) if not one.startswith(SUBPROTOCOL)]
            await websocket.accept(subprotocol=offered[0] if offered else None)
            running = protocol(stream)
            reason, words = await run_connection(
                websocket,
                running,
                self._drain,
                idle_seconds=self._settings.session_idle_seconds,
                final_seconds=self._settings.drain_seconds,
            )
        if stream.missed.count:
            logger.warning("session %s has speech without words: %s", running.session_id, stream.missed)
        if reason in DROPPED:
            self._metrics.sessions_dropped.labels(DROPPED[reason]).inc()
        seconds = time.monotonic() - began
        logger.info(
            "WS %s %s %d %s: %.0f s, %.1f s of audio, %d words",
            websocket.url.path, running.session_id, reason.code, reason.reason, seconds, stream.received_seconds, words,
        )  # fmt: skip
