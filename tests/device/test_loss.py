"""The device process ends in the middle and is started again: fronts ask again what has no answer."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack, asynccontextmanager, suppress
from typing import Any

import numpy as np
import pytest

from parakeet_stt.audio import Audio
from parakeet_stt.device import link as link_module
from parakeet_stt.device import messages
from parakeet_stt.device.client import DeviceClient
from parakeet_stt.device.link import MAX_LOSSES, DeviceLink
from parakeet_stt.errors import DeviceLost, RecognitionError
from parakeet_stt.ipc.channel import Channel, FrameParser, send_all
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, DetectorStates, Priority
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from parakeet_stt.vad import Probabilities, Windows
from tests.device.conftest import Make
from tests.device.echo import Echo, ask, busy, numbers_of, shared_audio, speak
from tests.parts import RunningDevice

ARRIVE = 0.1  # seconds in which what was asked has surely reached the device's socket
DEADLINE = 10  # seconds


@asynccontextmanager
async def supervised(device: RunningDevice, *, starts: int = 100) -> AsyncIterator[list[int]]:
    """Start the device again whenever it has ended, as the supervisor does; gives one item for each time."""
    restarts: list[int] = []

    async def keep() -> None:
        while len(restarts) < starts:
            while device.thread.is_alive():  # noqa: ASYNC110  # a thread sets no event when it ends
                await asyncio.sleep(0.005)
            restarts.append(len(restarts))
            device.start()

    keeping = asyncio.create_task(keep())
    try:
        yield restarts
    finally:
        keeping.cancel()
        with suppress(asyncio.CancelledError):
            await keeping


async def end(device: RunningDevice, echo: Echo) -> None:
    """End the device's thread, which `busy` holds, and wait until the link has noticed."""
    echo.deadly = {1}
    echo.go.set()
    await asyncio.to_thread(device.thread.join)
    echo.deadly = set()
    while device.client.is_alive:  # noqa: ASYNC110  # the link sets no event
        await asyncio.sleep(0.005)


def test_askers_do_not_notice_that_the_device_process_ended(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[list[int]]:
        first = await busy(echo, device)
        others = [asyncio.create_task(ask(device, n, 1000 + n)) for n in range(2, 40)]
        live = [asyncio.create_task(speak(device, n)) for n in range(100, 110)]
        await asyncio.sleep(ARRIVE)
        await end(device, echo)
        device.start()
        return await asyncio.wait_for(asyncio.gather(first, *others, *live), DEADLINE)

    answers = device.run(main())
    assert answers == [[1], *([n, 1000 + n] for n in range(2, 40)), *([n] for n in range(100, 110))]
    assert [type(one) for one in device.lost] == [SystemExit]
    assert device.ledger.waiting_seconds() == 0


def test_a_lost_device_ends_the_process_and_the_next_one_answers(make: Make, echo: Echo) -> None:
    device = make()
    works, echo_recognize = [False, True], echo.recognize

    def recognize(batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        if not works.pop(0):
            raise DeviceLost("gone")
        return echo_recognize(batch, phrases)

    echo.recognize = recognize  # type: ignore[method-assign]

    async def main() -> list[int]:
        async with supervised(device):
            return await asyncio.wait_for(ask(device, 5), DEADLINE)

    assert device.run(main()) == [5]
    assert [type(one) for one in device.lost] == [DeviceLost]


def test_what_is_asked_while_the_device_is_away_is_answered_when_it_is_back(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[list[int]]:
        first = await busy(echo, device)
        await end(device, echo)
        assert not device.client.is_alive
        others = [asyncio.create_task(ask(device, n)) for n in range(2, 40)]
        await asyncio.sleep(ARRIVE)
        device.start()
        answers = await asyncio.wait_for(asyncio.gather(first, *others), DEADLINE)
        assert device.client.is_alive
        return answers

    assert device.run(main()) == [[n] for n in range(1, 40)]


def test_a_source_goes_on_where_it_was_with_the_next_process(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[int]:
        link = device.client._links[0]
        with shared_audio() as audio:
            source = link.open(audio)
            answers = []
            for length in (10, 20):
                audio.append(np.zeros(length, np.float32))
                clip = audio.clip(audio.length - length, audio.length)
                found = await link.recognize(source, clip, priority=Priority.SHORT, owner=0, phrases=())
                answers += numbers_of(found.tokens)
                if length == 10:
                    first = await busy(echo, device)
                    await end(device, echo)
                    device.start()
                    await asyncio.wait_for(first, DEADLINE)
            link.close_source(source)
            return answers

    assert device.run(main()) == [10, 20]


def test_callers_who_leave_while_the_device_is_away_are_not_asked_for_again(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[int]:
        first = await busy(echo, device)
        leaving = [asyncio.create_task(ask(device, n)) for n in range(100, 120)]
        await asyncio.sleep(ARRIVE)
        await end(device, echo)
        for task in leaving:
            task.cancel()
        await asyncio.gather(*leaving, return_exceptions=True)
        device.start()
        return await asyncio.wait_for(first, DEADLINE)

    assert device.run(main()) == [1]
    assert echo.decoded == [1]
    assert device.ledger.waiting_seconds() == 0


def test_work_that_ends_the_device_each_time_is_given_up_and_others_get_their_answers(make: Make, echo: Echo) -> None:
    """Whatever was lost is decoded alone, so that the one to blame is found; the others' answers reach them before."""
    device = make()

    async def main() -> tuple[list[list[int] | BaseException], int]:
        first = await busy(echo, device)
        echo.deadly = {5}
        others = [asyncio.create_task(ask(device, n)) for n in range(2, 10)]
        await asyncio.sleep(ARRIVE)
        async with supervised(device) as restarts:
            echo.go.set()
            answers = await asyncio.wait_for(asyncio.gather(first, *others, return_exceptions=True), DEADLINE)
            return [*answers, await ask(device, 99)], len(restarts)

    answers, restarts = device.run(main())
    assert isinstance(answers.pop(4), RecognitionError)
    assert answers == [[n] for n in (1, 2, 3, 4, 6, 7, 8, 9, 99)]
    assert restarts == 1 + MAX_LOSSES  # once among others, then alone


def test_what_is_decoded_before_the_device_process_ends_reaches_its_front(make: Make, echo: Echo) -> None:
    """Else the front would count it as lost together with what is to blame, and give it up after a few times."""
    device = make()
    answered: list[messages.Told] = []

    async def main() -> None:
        innocent, guilty = socket.socket(socket.AF_UNIX), socket.socket(socket.AF_UNIX)
        with innocent, guilty, shared_audio(10) as audio:
            for front in (innocent, guilty):
                front.connect(str(device.paths.device(0)))
                assert front.recv(1 << 16)  # that it is welcome
            first = await busy(echo, device)
            echo.deadly = {5}
            for front, length in ((innocent, 4), (guilty, 5)):
                asked: list[messages.Asked] = [
                    messages.Open(0),
                    messages.Recognize(1, 0, 0, length, int(Priority.SHORT), 0, (), again=True),
                ]
                send_all(front, messages.encode(asked), [audio.descriptor])
            echo.go.set()
            await asyncio.to_thread(device.thread.join)
            parser, innocent_bytes = FrameParser(), []
            while data := innocent.recv(1 << 16):
                innocent_bytes.append(data)
            for message, _ in parser.push(b"".join(innocent_bytes)):
                answered.extend(messages.decode_told(message))
        echo.deadly = set()
        device.start()
        await asyncio.wait_for(first, DEADLINE)

    device.run(main())
    assert [type(one) for one in answered] == [messages.Started, messages.Recognized]


class Deadly:
    """A detector that ends the process."""

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        raise DeviceLost("gone")


def test_detection_that_ends_the_device_each_time_is_given_up(make: Make) -> None:
    device = make(detector=Deadly())

    async def main() -> int:
        with shared_audio(512) as audio, device.client.recording(audio) as queue:
            async with supervised(device, starts=10) as restarts:
                states = np.zeros((1, *DETECTOR_STATE_SHAPE), np.float32)
                try:
                    with pytest.raises(RecognitionError):
                        await asyncio.wait_for(queue.detect(0, 1, states), 2)
                finally:
                    if not device.thread.is_alive():
                        device.start()
                return len(restarts)

    assert device.run(main()) <= 1 + MAX_LOSSES


def test_recordings_that_end_when_the_device_is_back_do_not_end_the_connection(
    make: Make, echo: Echo, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Their sources were to be opened again, and their descriptors are closed: no message can be sent with those."""
    device = make()
    losses: list[DeviceLink] = []
    lose = DeviceLink._lose

    def count_and_lose(link: DeviceLink) -> None:
        losses.append(link)
        lose(link)

    monkeypatch.setattr(DeviceLink, "_lose", count_and_lose)

    async def main() -> list[int]:
        with ExitStack() as recordings:
            for _ in range(5):
                recordings.enter_context(device.client.recording(recordings.enter_context(shared_audio(10))))
            first = await busy(echo, device)
            first.cancel()
            await asyncio.wait({first})
            await end(device, echo)
            device.start()
            while not device.client.is_alive:  # noqa: ASYNC110  # the link sets no event
                await asyncio.sleep(0.005)
            losses.clear()
        return await asyncio.wait_for(ask(device, 3), DEADLINE)

    assert device.run(main()) == [3]
    assert losses == []


def test_a_caller_who_leaves_in_the_turn_in_which_the_device_is_back_does_no_harm(make: Make, echo: Echo) -> None:
    """Its request is not forgotten yet, and its source is."""
    device = make()

    async def main() -> list[int]:
        link = device.client._links[0]
        first = await busy(echo, device)
        with shared_audio(10) as audio:
            source = link.open(audio)
            answer = link.recognize(source, audio.clip(0, 10), priority=Priority.SHORT, owner=0, phrases=())
            await asyncio.sleep(ARRIVE)
            await end(device, echo)
            device.start()

            def leave_then_connect(*parts: Any) -> Channel:
                answer.cancel()
                link.close_source(source)
                return Channel(*parts)

            with pytest.MonkeyPatch.context() as patch:
                patch.setattr(link_module, "Channel", leave_then_connect)
                while not link.is_alive:  # noqa: ASYNC110  # the link sets no event
                    await asyncio.sleep(0.005)
            return await asyncio.wait_for(first, DEADLINE)

    assert device.run(main()) == [1]
    assert len(device.lost) == 1


def test_a_device_that_is_away_is_not_chosen(make: Make, echo: Echo) -> None:
    other = Echo()
    devices = [make(), make(other=other)]

    async def main() -> list[int]:
        async with devices[0].connected() as first, devices[1].connected() as second:
            blocked = await busy(echo, devices[0])
            await end(devices[0], echo)
            devices[0].client = devices[1].client = DeviceClient([*first._links, *second._links])
            assert devices[0].client.is_alive
            answer = await asyncio.wait_for(ask(devices[0], 7), DEADLINE)
            devices[0].start()
            return answer + await asyncio.wait_for(blocked, DEADLINE)

    assert asyncio.run(main()) == [7, 1]
    assert other.decoded == [7]
