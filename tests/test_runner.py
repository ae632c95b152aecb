"""The runner with a recognizer written by hand: failing and blocking at will is what no real model does."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator, Sequence

import numpy as np
import pytest

from stt.audio import Audio
from stt.errors import RecognitionError
from stt.server.runner import Runner
from stt.transcript import Hypothesis, Token


class Echo:
    """Answers each utterance with its number of samples; `poison` raises; nothing runs until `go` is set."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.poison: set[int] = set()
        self.go = threading.Event()
        self.go.set()
        self.started = threading.Event()
        self.threads: set[int] = set()

    def recognize(self, batch: Sequence[Audio]) -> list[Hypothesis]:
        lengths = [len(audio.samples) for audio in batch]
        self.batches.append(lengths)
        self.threads.add(threading.get_ident())
        self.started.set()
        assert self.go.wait(10)
        if self.poison & set(lengths):
            raise ValueError("poisoned")
        return [Hypothesis((Token(length, "x", 0, 0, 0),)) for length in lengths]


def audio(length: int) -> Audio:
    return Audio(np.zeros(length, np.float32))


@pytest.fixture
def echo() -> Echo:
    return Echo()


@pytest.fixture
def runner(echo: Echo) -> Iterator[Runner]:
    runner = Runner(echo, max_batch=8)
    yield runner
    echo.go.set()
    runner.close()


def test_each_result_returns_to_its_asker(runner: Runner, echo: Echo) -> None:
    async def ask() -> list[Hypothesis]:
        return await asyncio.gather(*(runner.recognize(audio(n)) for n in range(1, 101)))

    assert [hypothesis.tokens[0].id for hypothesis in asyncio.run(ask())] == list(range(1, 101))
    assert len(echo.threads) == 1


def test_what_waits_while_the_device_is_busy_is_decoded_together(runner: Runner, echo: Echo) -> None:
    async def ask() -> None:
        echo.go.clear()
        first = asyncio.create_task(runner.recognize(audio(1)))
        await asyncio.to_thread(echo.started.wait)
        others = [asyncio.create_task(runner.recognize(audio(n))) for n in range(2, 14)]
        await asyncio.sleep(0.01)
        echo.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(ask())
    assert [len(batch) for batch in echo.batches] == [1, 8, 4]


def test_a_bad_item_fails_alone_and_the_next_request_is_served(runner: Runner, echo: Echo) -> None:
    async def ask() -> list[Hypothesis | BaseException]:
        echo.poison = {5}
        echo.go.clear()
        waiting = [asyncio.create_task(runner.recognize(audio(n))) for n in range(1, 9)]
        await asyncio.sleep(0.02)
        echo.go.set()
        answers = await asyncio.gather(*waiting, return_exceptions=True)
        return [*answers, await runner.recognize(audio(9))]

    answers = asyncio.run(ask())
    assert isinstance(answers.pop(4), RecognitionError)
    assert [a.tokens[0].id for a in answers if isinstance(a, Hypothesis)] == [1, 2, 3, 4, 6, 7, 8, 9]


def test_a_caller_who_leaves_costs_the_device_nothing(runner: Runner, echo: Echo) -> None:
    async def ask() -> None:
        echo.go.clear()
        first = asyncio.create_task(runner.recognize(audio(1)))
        await asyncio.to_thread(echo.started.wait)
        leaving = [asyncio.create_task(runner.recognize(audio(n))) for n in (2, 3)]
        staying = asyncio.create_task(runner.recognize(audio(4)))
        await asyncio.sleep(0.01)
        for task in leaving:
            task.cancel()
        await asyncio.sleep(0.01)
        echo.go.set()
        await asyncio.gather(first, staying)

    asyncio.run(ask())
    assert echo.batches == [[1], [4]]


def test_closing_finishes_what_waits(echo: Echo) -> None:
    runner = Runner(echo, max_batch=2)

    async def ask() -> list[Hypothesis]:
        waiting = [asyncio.create_task(runner.recognize(audio(n))) for n in range(1, 6)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(runner.close)
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(ask())) == 5
