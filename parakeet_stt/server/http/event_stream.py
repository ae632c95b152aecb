"""Server-sent events: each value is one `data:` line, and an error is the last line."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse

from parakeet_stt.server.http.disconnects import cancel_on_disconnect
from parakeet_stt.server.http.errors import to_response
from parakeet_stt.server.http.responses import json_bytes

# The second header is for nginx, which would buffer the events.
HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}

Events = AsyncGenerator[Mapping[str, Any], None]


async def stream_events(request: Request, events: Events, *, event_seconds: float) -> StreamingResponse:
    """Answer with `events`; closes them at their end, or when the client disconnects.

    event_seconds: that one event may take. An error before the first event is raised, so that it gets its own status. A
    later one becomes the last event, in the envelope.
    """
    try:
        async with asyncio.timeout(event_seconds):
            first = await cancel_on_disconnect(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(
        _lines(request, first, events, event_seconds), media_type="text/event-stream", headers=HEADERS
    )


async def _lines(
    request: Request, first: Mapping[str, Any], events: Events, event_seconds: float
) -> AsyncGenerator[bytes, None]:
    try:
        yield _line(first)
        while True:
            async with asyncio.timeout(event_seconds):
                event = await anext(events, None)
            if event is None:
                break
            yield _line(event)
    except Exception as exc:  # the status was 200: only an event can still tell the client
        yield b"data: " + bytes(to_response(request, exc).body) + b"\n\n"
    finally:
        with anyio.CancelScope(shield=True):
            await events.aclose()


def _line(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json_bytes(event) + b"\n\n"
