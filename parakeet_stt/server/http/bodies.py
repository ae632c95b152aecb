"""Limits of a request's body: its bytes, and the time that it may take to come."""

from __future__ import annotations

import time

from starlette.datastructures import Headers
from starlette.types import Message, Receive, Scope

from parakeet_stt.errors import ShuttingDown, SpeechError, UploadStalled, UploadTooLarge
from parakeet_stt.server.files.bento import NATIVE_PATH
from parakeet_stt.server.http.drain import RETRY_SECONDS, Drain
from parakeet_stt.server.settings import Settings

# All that take a file. Any other route gets a body of JSON, or none, and reads it whole into memory.
FILE_PATHS = frozenset({"/v1/audio/transcriptions", "/v1/audio/translations", "/transcribe", NATIVE_PATH})
MAX_JSON_BYTES = 1 << 20
SLOWEST_RATE = 1000  # bytes a second, below which an upload is given up; speech in Opus has twice as many


class Body:
    """The body of one request as it comes. error: what ended it, once something has."""

    def __init__(self, scope: Scope, receive: Receive, settings: Settings, drain: Drain) -> None:
        """Raises UploadTooLarge if it is announced to be too long."""
        takes_file = scope["path"] in FILE_PATHS
        self._most_bytes = settings.max_upload_bytes if takes_file else min(MAX_JSON_BYTES, settings.max_upload_bytes)
        self._param = "file" if takes_file else None
        self._receive = receive
        self._seconds = settings.request_timeout_seconds
        self._drain = drain
        self._received, self._waited = 0, 0.0  # bytes, seconds
        self._is_complete = False
        self.error: SpeechError | None = None
        if int(Headers(scope=scope).get("content-length") or 0) > self._most_bytes:
            raise self._too_large()

    async def receive(self) -> Message:
        """The next part. Raises UploadTooLarge, UploadStalled, or ShuttingDown at the end of the drain."""
        if self._is_complete:  # it can only be that the client leaves
            return await self._receive()
        began = time.monotonic()
        try:
            async with self._drain.wait_for_client(self._rest_seconds()):
                message = await self._receive()
        except TimeoutError:
            raise self._fail(
                ShuttingDown(
                    "The server ends, and the upload is not complete. Please retry.", retry_after=RETRY_SECONDS
                )
                if self._drain.is_over
                else UploadStalled("The upload has stopped before its end, or is too slow.")
            ) from None
        self._waited += time.monotonic() - began
        self._received += len(message.get("body", b""))
        self._is_complete = not message.get("more_body", False)
        if self._received > self._most_bytes:
            raise self._fail(self._too_large())
        return message

    def _rest_seconds(self) -> float:
        return min(self._seconds, self._seconds + self._received / SLOWEST_RATE - self._waited)

    def _too_large(self) -> UploadTooLarge:
        message = f"The request body is larger than the limit of {self._most_bytes} bytes."
        return UploadTooLarge(message, param=self._param)

    def _fail(self, error: SpeechError) -> SpeechError:
        self.error = error
        return error
