"""Cancels the work of a request when its client disconnects."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from typing import TypeVar

from fastapi import Request
from starlette.requests import ClientDisconnect

T = TypeVar("T")
POLL_SECONDS = 0.5


async def cancel_on_disconnect(request: Request, work: Awaitable[T]) -> T:
    """The result of `work`; cancels it and raises ClientDisconnect when the client disconnects.

    Starlette does not cancel a handler by itself.
    """
    task = asyncio.ensure_future(work)
    try:
        while not (await asyncio.wait({task}, timeout=POLL_SECONDS))[0]:
            if await request.is_disconnected():
                raise ClientDisconnect
        return task.result()
    finally:
        task.cancel()
