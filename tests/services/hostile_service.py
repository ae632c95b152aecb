"""The service, with limits of time that a test can wait for."""

from functools import partial

import uvicorn

from parakeet_stt.media import pool
from parakeet_stt.server.connections import http, watch
from tests.services import preloaded_service

http.HEAD_SECONDS = 2.0
watch.UNREAD_SECONDS = 3.0
pool.QUIET_SECONDS = 2.5
uvicorn.Config = partial(uvicorn.Config, ws_ping_interval=0.3, ws_ping_timeout=1.0)  # type: ignore[assignment, misc]

ParakeetSTT = preloaded_service.ParakeetSTT
