"""The batcher and its client, with a recognizer written by hand: failing and blocking at will is what no model does."""

from __future__ import annotations

import asyncio
import gc
import time
import weakref
from collections.abc import AsyncGenerator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import aclosing

import numpy as np
import pytest

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.device.link import FIRST_SECONDS
from parakeet_stt.errors import DeviceLost, OutOfMemory, Overloaded, RecognitionError
from parakeet_stt.protocols import Priority
from parakeet_stt.server.metrics import Metrics
from tests.device.echo import Echo, arriving, ask, audio, busy, recognize, seconds, speak


@pytest.fixture
def echo() -> Echo:
    return Echo()


Make = Callable[..., Batcher]


@pytest.fixture
def make(echo: Echo) -> Iterator[Make]:
    made: list[Batcher] = []

    def make_batcher(
        *,
        budget: float = 8.0,
        batches: BatchBudget | None = None,
        max_waiting: float = 1e9,
        on_lost: Callable[[DeviceLost], None] = lambda _: None,
    ) -> Batcher:
        batches = batches or BatchBudget(Cost(overhead=1.0, speed=10.0), seconds=budget, items=16)
        made.append(
            Batcher(
                echo,
                batches,
                thread=ThreadPoolExecutor(1),
                max_waiting=max_waiting,
                on_report=Metrics().record,
                on_lost=on_lost,
            )
        )
        return made[-1]

    yield make_batcher
    echo.go.set()
    for device in made:
        device.close()


def test_each_result_returns_to_its_asker(make: Make, echo: Echo) -> None:
    device = make()

    async def all_ask() -> list[list[int]]:
        return await asyncio.gather(*(ask(device, audio(n), audio(1000 + n)) for n in range(1, 101)))

    assert asyncio.run(all_ask()) == [[n, 1000 + n] for n in range(1, 101)]
    assert len(echo.threads) == 1


def test_what_waits_while_the_device_is_busy_is_decoded_together(make: Make, echo: Echo) -> None:
    device = make(budget=8.0)

    async def main() -> None:
        first = await busy(echo, device)
        others = [asyncio.create_task(ask(device, seconds(1))) for _ in range(12)]
        await asyncio.sleep(0.05)
        echo.go.set()
        await asyncio.gather(first, *others)

    asyncio.run(main())
    assert [len(batch) for batch in echo.batches] == [1, 8, 4]


def test_live_audio_goes_first_and_a_clip_waits_for_no_more_than_the_running_batch_of_a_long_file(
    make: Make, echo: Echo
) -> None:
    device = make(budget=2.0)

    async def main() -> list[int]:
        long = asyncio.create_task(ask(device, *[seconds(2)] * 2000))
        while len(echo.decoded) * 2 <= FIRST_SECONDS:  # noqa: ASYNC110  # the device's thread sets no event
            await asyncio.sleep(0.001)
        echo.go.clear()
        await asyncio.sleep(0.05)
        before = len(echo.decoded)
        clip = asyncio.create_task(ask(device, seconds(1)))
        live = asyncio.create_task(speak(device, seconds(0.5)))
        await asyncio.sleep(0.05)
        echo.go.set()
        await asyncio.gather(long, clip, live)
        return echo.decoded[before:]

    order = asyncio.run(main())
    assert order[:3] == [2 * SAMPLE_RATE, SAMPLE_RATE // 2, SAMPLE_RATE]
    assert len(order) > 10


def test_a_long_recording_has_only_a_few_batches_waiting(make: Make, echo: Echo) -> None:
    device = make(budget=4.0)

    async def main() -> float:
        first = await busy(echo, device)
        long = asyncio.create_task(ask(device, *[seconds(2)] * 50))
        await asyncio.sleep(0.05)
        waiting = device.waiting_seconds()
        echo.go.set()
        await asyncio.gather(first, long)
        return waiting

    assert asyncio.run(main()) == pytest.approx(8, abs=0.01)
    assert len(echo.decoded) == 51


def test_a_bad_item_in_a_batch_of_16_fails_alone_and_the_next_request_is_served(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[list[int] | BaseException]:
        echo.poison = {5}
        first = await busy(echo, device)
        waiting = [asyncio.create_task(ask(device, audio(n))) for n in range(2, 18)]
        await asyncio.sleep(0.05)
        echo.go.set()
        answers = await asyncio.gather(first, *waiting, return_exceptions=True)
        return [*answers, await ask(device, audio(99))]

    answers = asyncio.run(main())
    assert len(echo.batches[1]) == 16
    assert isinstance(answers.pop(4), RecognitionError)
    assert answers == [[n] for n in (1, 2, 3, 4, *range(6, 18), 99)]


def test_out_of_memory_is_the_askers_never_notice_and_the_budget_recovers(make: Make, echo: Echo) -> None:
    batches = BatchBudget(Cost(overhead=1.0, speed=10.0), seconds=16.0, items=16)
    device = make(batches=batches)
    echo.room = 5 * SAMPLE_RATE

    async def main() -> list[list[int]]:
        first = await busy(echo, device)
        waiting = [asyncio.create_task(ask(device, seconds(1))) for _ in range(32)]
        await asyncio.sleep(0.05)
        echo.go.set()
        return await asyncio.gather(first, *waiting)

    assert asyncio.run(main()) == [[1], *[[SAMPLE_RATE]] * 32]
    assert max(map(len, echo.batches)) <= 5
    assert batches.limits.seconds <= 8
    echo.room = float("inf")

    async def many() -> None:
        for _ in range(400):
            await ask(device, audio(10))

    asyncio.run(many())
    assert batches.limits.seconds == 16


def test_a_single_item_that_does_not_fit_is_an_error_and_not_a_loop(make: Make, echo: Echo) -> None:
    device = make()
    echo.room = SAMPLE_RATE
    with pytest.raises(OutOfMemory):
        asyncio.run(ask(device, seconds(2)))
    assert asyncio.run(ask(device, audio(7))) == [7]


def test_a_lost_device_is_told_once_and_nobody_waits_for_it(make: Make, echo: Echo) -> None:
    reported: list[DeviceLost] = []
    device = make(on_lost=reported.append)

    async def main() -> list[list[int] | BaseException]:
        first = await busy(echo, device)
        waiting = [asyncio.create_task(ask(device, audio(n))) for n in range(2, 40)]
        await asyncio.sleep(0.05)
        echo.lost = True
        echo.go.set()
        return [*await asyncio.gather(first, *waiting, return_exceptions=True)]

    assert all(isinstance(answer, DeviceLost) for answer in asyncio.run(main()))
    assert len(reported) == 1
    assert not device.is_alive
    with pytest.raises(DeviceLost):
        asyncio.run(ask(device, audio(1)))


def test_over_the_limit_askers_are_refused_with_the_time_to_come_back(make: Make, echo: Echo) -> None:
    device = make(max_waiting=30.0)

    async def main() -> Overloaded:
        first = await busy(echo, device)
        waiting = [asyncio.create_task(ask(device, seconds(10))) for _ in range(3)]
        await asyncio.sleep(0.05)
        with pytest.raises(Overloaded) as refused:
            await ask(device, seconds(1))
        assert device.waiting_seconds(Priority.LIVE) == 0
        live = asyncio.create_task(speak(device, seconds(1)))  # what goes first is let in
        await asyncio.sleep(0.05)
        echo.go.set()
        await asyncio.gather(first, live, *waiting)
        await ask(device, seconds(1))
        return refused.value

    refused = asyncio.run(main())
    assert refused.retry_after == 4  # 30 s at ten times real time, rounded up from a little over 3 s
    assert "30 s" in refused.message


def test_a_thousand_callers_who_leave_cost_the_device_nothing_and_leave_nothing_behind(make: Make, echo: Echo) -> None:
    device = make()
    sounds: list[weakref.ref[Audio]] = []

    class Weak(Audio):
        __slots__ = ("__weakref__",)

    async def main() -> None:
        first = await busy(echo, device)
        leaving = []
        for _ in range(1000):
            sound = Weak(np.zeros(1000, np.float32))
            sounds.append(weakref.ref(sound))
            leaving.append(asyncio.create_task(ask(device, sound)))
        del sound
        staying = asyncio.create_task(ask(device, audio(4)))
        await asyncio.sleep(0.05)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        echo.go.set()
        await asyncio.gather(first, staying)

    asyncio.run(main())
    assert echo.batches == [[1], [4]]
    assert device.waiting_seconds() == pytest.approx(0)
    asyncio.run(ask(device, audio(1)))
    gc.collect()
    assert not any(sound() for sound in sounds)


@pytest.mark.parametrize("live", [False, True])
def test_audio_is_let_go_with_its_answer_and_not_by_the_garbage_collector(make: Make, echo: Echo, live: bool) -> None:
    """An item and its callbacks referred to each other: a long recording's audio piled up between two collections."""
    device = make()

    class Weak(Audio):
        __slots__ = ("__weakref__",)

    async def main() -> int:
        sounds: list[weakref.ref[Audio]] = []
        for _ in range(50):
            sound = Weak(np.zeros(1000, np.float32))
            sounds.append(weakref.ref(sound))
            await (speak(device, sound) if live else ask(device, sound))
            del sound
        await ask(device, audio(1))  # what the device's thread had at last is another now
        await asyncio.sleep(0.05)
        return sum(sound() is not None for sound in sounds)

    gc.collect()
    gc.disable()
    try:
        assert asyncio.run(main()) == 0
    finally:
        gc.enable()


def test_closing_the_iterator_takes_what_waits_out_of_the_queue(make: Make, echo: Echo) -> None:
    device = make(budget=1.0)

    async def main() -> None:
        results = recognize(device, arriving([seconds(1)] * 10))
        async with aclosing(results):
            await anext(results)
            echo.go.clear()
        echo.go.set()
        await ask(device, audio(9))

    asyncio.run(main())
    assert len(echo.decoded) <= 5


def test_a_result_is_given_out_while_the_next_utterance_is_still_to_come(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[int]:
        answered = asyncio.Event()

        async def slowly() -> AsyncGenerator[Audio, None]:
            yield audio(1)
            await asyncio.wait_for(answered.wait(), 10)
            yield audio(2)

        answers = []
        async with aclosing(recognize(device, slowly())) as results:
            async for answer in results:
                answers.append(answer)
                answered.set()
        return answers

    assert asyncio.run(main()) == [1, 2]


def test_what_goes_wrong_while_utterances_are_made_reaches_the_asker_alone(make: Make, echo: Echo) -> None:
    device = make()

    async def broken() -> AsyncGenerator[Audio, None]:
        for _ in ():
            yield audio(1)
        raise ValueError("the file ends here")

    async def main() -> list[int]:
        with pytest.raises(ValueError, match="ends here"):
            await anext(recognize(device, broken()))
        return await ask(device, audio(3))

    assert asyncio.run(main()) == [3]


def test_closing_finishes_what_waits(make: Make, echo: Echo) -> None:
    device = make(budget=0.001)

    async def main() -> list[list[int]]:
        waiting = [asyncio.create_task(ask(device, audio(n))) for n in range(1, 6)]
        await asyncio.sleep(0.01)
        await asyncio.to_thread(device.close)
        return await asyncio.gather(*waiting)

    assert len(asyncio.run(main())) == 5


def test_two_devices_work_side_by_side() -> None:
    """One worker, and so one device, a device: neither waits for the other."""
    echoes = [Echo(), Echo()]
    budgets = [BatchBudget(Cost(1.0, 10.0), seconds=8.0, items=16) for _ in echoes]
    devices = [
        Batcher(
            echo,
            own,
            thread=ThreadPoolExecutor(1),
            max_waiting=1e9,
            on_report=Metrics().record,
            on_lost=lambda _: None,
        )
        for echo, own in zip(echoes, budgets, strict=True)
    ]
    echoes[0].go.clear()

    async def main() -> list[int]:
        blocked = asyncio.create_task(ask(devices[0], audio(1)))
        began = time.monotonic()
        answer = await ask(devices[1], audio(2))
        assert time.monotonic() - began < 1
        echoes[0].go.set()
        return await blocked + answer

    assert asyncio.run(main()) == [1, 2]
    assert echoes[0].threads.isdisjoint(echoes[1].threads)
    for device in devices:
        device.close()
