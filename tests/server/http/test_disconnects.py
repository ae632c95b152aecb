"""Work that nobody waits for any more."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from starlette.requests import ClientDisconnect

from parakeet_stt.server.http.disconnects import cancel_on_disconnect


class Caller:
    """A request whose client leaves after `stays` polls."""

    def __init__(self, stays: int) -> None:
        self.stays = stays

    async def is_disconnected(self) -> bool:
        self.stays -= 1
        return self.stays < 0


@pytest.fixture(autouse=True)
def polled_quickly(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("parakeet_stt.server.http.disconnects.POLL_SECONDS", 0.01)


def test_work_is_cancelled_when_its_caller_leaves() -> None:
    ended: list[str] = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            ended.append("cancelled")
            raise

    async def serve(caller: Any) -> None:
        with pytest.raises(ClientDisconnect):
            await cancel_on_disconnect(caller, work())
        await asyncio.sleep(0)

    asyncio.run(serve(Caller(stays=2)))
    assert ended == ["cancelled"]


def test_a_caller_who_stays_gets_the_result_or_the_error() -> None:
    async def answer() -> int:
        await asyncio.sleep(0.03)
        return 7

    async def fail() -> int:
        raise ValueError("no")

    async def serve(caller: Any) -> int:
        with pytest.raises(ValueError, match="no"):
            await cancel_on_disconnect(caller, fail())
        return await cancel_on_disconnect(caller, answer())

    assert asyncio.run(serve(Caller(stays=100))) == 7
