"""Fronts and a device at a real socket, with a recognizer written by hand: it fails and blocks as no model does."""

from __future__ import annotations

import asyncio
import gc
from collections.abc import AsyncGenerator
from contextlib import aclosing

import pytest

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.client import FIRST_SECONDS, DeviceClient
from parakeet_stt.errors import Overloaded, RecognitionError
from tests.device.conftest import Make
from tests.device.echo import (
    Echo,
    arriving,
    ask,
    busy,
    open_descriptors,
    recognize,
    seconds,
    shared_audio,
    speak,
)
from tests.parts import RunningDevice

ARRIVE = 0.1  # seconds in which what was asked has surely reached the device's socket


def test_each_result_returns_to_its_asker(make: Make, echo: Echo) -> None:
    device = make()

    async def all_ask() -> list[list[int]]:
        return await asyncio.gather(*(ask(device, n, 1000 + n) for n in range(1, 101)))

    assert device.run(all_ask()) == [[n, 1000 + n] for n in range(1, 101)]
    assert len(echo.threads) == 1


def test_what_waits_while_the_device_is_busy_is_decoded_together(make: Make, echo: Echo) -> None:
    """Each asks in a turn of the event loop of its own, as requests do: each in a message of its own."""
    device = make(budget=8.0)

    async def main() -> None:
        first = await busy(echo, device)
        others = []
        for _ in range(12):
            others.append(asyncio.create_task(ask(device, seconds(1))))
            await asyncio.sleep(0.005)
        await asyncio.sleep(ARRIVE)
        echo.go.set()
        await asyncio.gather(first, *others)

    device.run(main())
    assert [len(batch) for batch in echo.batches] == [1, 8, 4]


def test_live_audio_goes_first_and_a_clip_waits_for_no_more_than_the_running_batch_of_a_long_file(
    make: Make, echo: Echo
) -> None:
    device = make(budget=2.0)

    async def main() -> list[int]:
        long = asyncio.create_task(ask(device, *[seconds(2)] * 300))
        while len(echo.decoded) * 2 <= FIRST_SECONDS:  # noqa: ASYNC110  # the device's thread sets no event
            await asyncio.sleep(0.001)
        echo.go.clear()
        await asyncio.sleep(ARRIVE)
        before = len(echo.decoded)
        clip = asyncio.create_task(ask(device, seconds(1)))
        live = asyncio.create_task(speak(device, seconds(0.5)))
        await asyncio.sleep(ARRIVE)
        echo.go.set()
        await asyncio.gather(long, clip, live)
        return echo.decoded[before:]

    order = device.run(main())
    assert order[:3] == [2 * SAMPLE_RATE, SAMPLE_RATE // 2, SAMPLE_RATE]
    assert len(order) > 10


def test_a_long_recording_has_only_a_few_batches_waiting(make: Make, echo: Echo) -> None:
    device = make(budget=4.0)

    async def main() -> float:
        first = await busy(echo, device)
        long = asyncio.create_task(ask(device, *[seconds(2)] * 50))
        await asyncio.sleep(ARRIVE)
        waiting = device.client.waiting_seconds()
        echo.go.set()
        await asyncio.gather(first, long)
        return waiting

    assert device.run(main()) == pytest.approx(8, abs=0.01)
    assert len(echo.decoded) == 51


def test_a_bad_item_in_a_batch_of_16_fails_alone_and_the_next_request_is_served(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[list[int] | BaseException]:
        echo.poison = {5}
        first = await busy(echo, device)
        waiting = [asyncio.create_task(ask(device, n)) for n in range(2, 18)]
        await asyncio.sleep(ARRIVE)
        echo.go.set()
        answers = await asyncio.gather(first, *waiting, return_exceptions=True)
        return [*answers, await ask(device, 99)]

    answers = device.run(main())
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
        await asyncio.sleep(ARRIVE)
        echo.go.set()
        return await asyncio.gather(first, *waiting)

    assert device.run(main()) == [[1], *[[SAMPLE_RATE]] * 32]
    assert max(map(len, echo.batches)) <= 5
    assert batches.limits.seconds <= 8
    echo.room = float("inf")

    async def many() -> None:
        for _ in range(400):
            await ask(device, 10)

    device.run(many())
    assert batches.limits.seconds == 16


def test_a_single_item_that_does_not_fit_is_an_error_and_not_a_loop(make: Make, echo: Echo) -> None:
    device = make()
    echo.room = SAMPLE_RATE
    with pytest.raises(RecognitionError, match="too much"):
        device.run(ask(device, seconds(2)))
    assert device.run(ask(device, 7)) == [7]


def test_over_the_limit_askers_are_refused_with_the_time_to_come_back(make: Make, echo: Echo) -> None:
    device = make(max_waiting=30.0)

    async def main() -> Overloaded:
        first = await busy(echo, device)
        waiting = [asyncio.create_task(ask(device, seconds(10))) for _ in range(3)]
        await asyncio.sleep(ARRIVE)
        with pytest.raises(Overloaded) as refused:
            await ask(device, seconds(1))
        assert device.client.waiting_seconds() == pytest.approx(30, abs=0.01)  # without the one that was refused
        live = asyncio.create_task(speak(device, seconds(1)))  # what goes first is let in
        await asyncio.sleep(ARRIVE)
        echo.go.set()
        await asyncio.gather(first, live, *waiting)
        await ask(device, seconds(1))
        return refused.value

    refused = device.run(main())
    assert refused.retry_after == 4  # 30 s at ten times real time, rounded up from a little over 3 s
    assert "30 s" in refused.message


def test_a_thousand_callers_who_leave_cost_the_device_nothing_and_leave_nothing_behind(make: Make, echo: Echo) -> None:
    """Their descriptors are closed at both ends, which this process has both of, without the garbage collector."""
    device = make()

    async def main() -> tuple[int, int]:
        before = open_descriptors()
        first = await busy(echo, device)
        leaving = [asyncio.create_task(ask(device, 1000)) for _ in range(1000)]
        staying = asyncio.create_task(ask(device, 4))
        await asyncio.sleep(ARRIVE)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        assert device.client.waiting_seconds() == pytest.approx(5 / SAMPLE_RATE)
        echo.go.set()
        await asyncio.gather(first, staying)
        await ask(device, 9)  # with this, the device hears of the last sources that are closed
        await asyncio.sleep(ARRIVE)
        return before, open_descriptors()

    gc.collect()
    gc.disable()
    try:
        before, after = device.run(main())
    finally:
        gc.enable()
    assert echo.batches == [[1], [4], [9]]
    assert device.ledger.waiting_seconds() == 0
    assert after <= before + 1  # of the last one


@pytest.mark.parametrize("live", [False, True])
def test_audio_is_let_go_with_its_answer_and_not_by_the_garbage_collector(make: Make, live: bool) -> None:
    """An item and its callbacks referred to each other: a long recording's audio piled up between two collections."""
    device = make()

    async def main() -> tuple[int, int]:
        await ask(device, 1)
        before = open_descriptors()
        for _ in range(50):
            await (speak(device, 1000) if live else ask(device, 1000))
        await asyncio.sleep(ARRIVE)
        return before, open_descriptors()

    gc.collect()
    gc.disable()
    try:
        before, after = device.run(main())
    finally:
        gc.enable()
    assert after <= before + 1  # of the last one


def test_a_front_that_is_gone_leaves_no_audio_in_the_device(make: Make, echo: Echo) -> None:
    """The memory of its recordings would stay until a collection, which may not come for hours."""
    device = make()

    async def main() -> tuple[int, int]:
        async with device.connected() as leaving, device.connected() as staying:
            before = open_descriptors()
            first = await busy(echo, device)
            device.client = leaving
            asking = [asyncio.create_task(ask(device, 1000)) for _ in range(40)]
            await asyncio.sleep(ARRIVE)
            leaving.close()
            for task in asking:
                task.cancel()
            await asyncio.gather(*asking, return_exceptions=True)
            device.client = staying
            echo.go.set()
            await first
            await ask(device, 9)
            await asyncio.sleep(ARRIVE)
            return before, open_descriptors()

    gc.collect()
    gc.disable()
    try:
        before, after = asyncio.run(main())
    finally:
        gc.enable()
    assert echo.decoded.count(1000) <= 16  # one batch, taken before the end was noticed
    assert after <= before - 2 + 1  # without both ends of its connection; the last one's audio


def test_closing_the_iterator_takes_what_waits_out_of_the_queue(make: Make, echo: Echo) -> None:
    device = make(budget=1.0)

    async def main() -> None:
        results = recognize(device, arriving([seconds(1)] * 10))
        async with aclosing(results):
            await anext(results)
            echo.go.clear()
        echo.go.set()
        await ask(device, 9)

    device.run(main())
    assert len(echo.decoded) <= 5


def test_a_result_is_given_out_while_the_next_utterance_is_still_to_come(make: Make) -> None:
    device = make()

    async def main() -> list[int]:
        answered = asyncio.Event()

        async def slowly() -> AsyncGenerator[int, None]:
            yield 1
            await asyncio.wait_for(answered.wait(), 10)
            yield 2

        answers = []
        async with aclosing(recognize(device, slowly())) as results:
            async for answer in results:
                answers.append(answer)
                answered.set()
        return answers

    assert device.run(main()) == [1, 2]


def test_what_goes_wrong_while_utterances_are_made_reaches_the_asker_alone(make: Make) -> None:
    device = make()

    async def broken() -> AsyncGenerator[int, None]:
        for _ in ():
            yield 1
        raise ValueError("the file ends here")

    async def main() -> list[int]:
        with pytest.raises(ValueError, match="ends here"):
            await anext(recognize(device, broken()))
        return await ask(device, 3)

    assert device.run(main()) == [3]


def test_a_device_finishes_what_waits_before_it_ends(make: Make) -> None:
    device = make(budget=0.001)

    async def main() -> list[list[int]]:
        waiting = [asyncio.create_task(ask(device, n)) for n in range(1, 6)]
        await asyncio.sleep(0.01)
        device._lifeline.close()
        return await asyncio.gather(*waiting)

    assert device.run(main()) == [[n] for n in range(1, 6)]
    device.thread.join(10)
    assert not device.thread.is_alive()


def test_two_devices_work_side_by_side_and_a_recording_goes_to_the_one_with_less_to_do(make: Make) -> None:
    """One process, and so one loop, a device: neither waits for the other."""
    echoes = [Echo(), Echo()]
    devices: list[RunningDevice] = [make(other=echo) for echo in echoes]

    async def main() -> list[int]:
        async with devices[0].connected() as first, devices[1].connected() as second:
            both = DeviceClient([*first._links, *second._links])
            devices[0].client = devices[1].client = both
            blocked = await busy(echoes[0], devices[0])
            answer = await ask(devices[1], 2)  # while the first can't answer
            echoes[0].go.set()
            return await blocked + answer

    assert asyncio.run(main()) == [1, 2]
    assert [echo.decoded for echo in echoes] == [[1], [2]]


def test_a_session_that_is_refused_is_told_when_to_come_back(make: Make) -> None:
    device = make()
    device.ledger.set_limits(max_waiting=None, max_sessions=1)

    async def main() -> Overloaded:
        with shared_audio() as audio, device.client.session(audio):
            with pytest.raises(Overloaded) as refused, device.client.session(audio):
                pass
        with device.client.session(audio):
            return refused.value

    assert device.run(main()).retry_after > 0
