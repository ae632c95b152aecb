"""The time of the end: what is finished in it is answered, what is not gets an end of its own."""

from __future__ import annotations

import asyncio
import time

import pytest

from parakeet_stt.errors import ShuttingDown
from parakeet_stt.server.http import drain as drain_module
from parakeet_stt.server.http.drain import Drain
from parakeet_stt.server.monitoring.metrics import Metrics

PATIENCE = 5.0  # seconds; a loaded machine


async def work(drain: Drain, seconds: float) -> str:
    async with drain.request():
        await asyncio.sleep(seconds)
    return "done"


def test_work_that_is_not_finished_in_the_time_ends_and_the_rest_is_waited_for() -> None:
    async def run() -> tuple[list[object], float]:
        drain = Drain(Metrics())
        tasks = [asyncio.create_task(work(drain, seconds)) for seconds in (0.1, 1000)]
        talking = asyncio.create_task(talk(drain))
        await asyncio.sleep(0)
        began = time.monotonic()
        await drain.finish(0.5)
        async with asyncio.timeout(PATIENCE):
            ended: list[object] = [*await asyncio.gather(*tasks, talking, return_exceptions=True)]
        return ended, time.monotonic() - began

    async def talk(drain: Drain) -> None:
        async with drain.session():
            await asyncio.sleep(1000)

    (done, unfinished, session), seconds = asyncio.run(run())
    assert done == "done"
    assert isinstance(unfinished, ShuttingDown)
    assert isinstance(session, ShuttingDown)
    assert unfinished.retry_after > 0
    assert 0.5 <= seconds < PATIENCE


def test_a_client_that_is_waited_for_has_less_of_a_long_drain_than_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(drain_module, "CLIENT_SECONDS", 0.1)
    monkeypatch.setattr(drain_module, "LAST_SECONDS", 0.1)

    async def stall(drain: Drain) -> float:
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            async with drain.request(), drain.wait_for_client(None):
                await asyncio.sleep(1000)
        return time.monotonic() - began

    async def run() -> tuple[float, str]:
        drain = Drain(Metrics())
        stalled, working = asyncio.create_task(stall(drain)), asyncio.create_task(work(drain, 1.0))
        await asyncio.sleep(0)
        await drain.finish(PATIENCE)
        return await stalled, await working

    seconds, worked = asyncio.run(run())
    assert 0.2 <= seconds < 1.0
    assert worked == "done"
