"""Knows server-sent events: how values become lines, and an error the last of them. Does not know what they say."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Mapping
from typing import Any

import anyio
from fastapi import Request
from fastapi.responses import StreamingResponse

from parakeet_stt.server.http.disconnects import unless_gone
from parakeet_stt.server.http.errors import answer_to
from parakeet_stt.server.http.responses import json_bytes

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # the second for nginx, which would hold events back

Events = AsyncGenerator[Mapping[str, Any], None]


async def event_stream(request: Request, events: Events, *, patience: float) -> StreamingResponse:
    """Answer with `events`, and close them when they end, or when the caller leaves.

    patience: seconds that one event may take. Raises what is raised before the first event, so that it is answered
    with its own status; what is raised later is the last event, in the envelope.
    """
    try:
        async with asyncio.timeout(patience):
            first = await unless_gone(request, anext(events))
    except BaseException:
        await events.aclose()
        raise
    return StreamingResponse(_lines(request, first, events, patience), media_type="text/event-stream", headers=HEADERS)


async def _lines(
    request: Request, first: Mapping[str, Any], events: Events, patience: float
) -> AsyncGenerator[bytes, None]:
    try:
        yield _line(first)
        while True:
            async with asyncio.timeout(patience):
                event = await anext(events, None)
            if event is None:
                break
            yield _line(event)
    except Exception as exc:  # the caller has had status 200: this is all that is left to say
        yield b"data: " + bytes(answer_to(request, exc).body) + b"\n\n"
    finally:
        with anyio.CancelScope(shield=True):
            await events.aclose()


def _line(event: Mapping[str, Any]) -> bytes:
    return b"data: " + json_bytes(event) + b"\n\n"
