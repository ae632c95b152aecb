"""The link to a device process: every kind of request and its answer, and what crosses with it."""

from __future__ import annotations

import asyncio
import pickle
import stat
from collections.abc import AsyncGenerator, Iterator, Sequence

import numpy as np
import pytest

from parakeet_stt.audio import Audio, Samples, Span
from parakeet_stt.device import messages, server
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.link import DeviceLink
from parakeet_stt.errors import RecognitionError, StartupError
from parakeet_stt.ipc.channel import MAX_DESCRIPTORS
from parakeet_stt.ipc.shared_audio import SharedAudio
from parakeet_stt.media.filters import find_filter
from parakeet_stt.protocols import DETECTOR_STATE_SHAPE, Chunk, ChunkResult, DetectorStates, Priority
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis, Token
from parakeet_stt.vad import CONTEXT_SAMPLES, WINDOW_SAMPLES, Probabilities, Windows
from tests.device.conftest import Make
from tests.device.echo import Echo, ask, numbers_of, shared_audio
from tests.parts import FakeRecognizer, RunningDevice


class Prober:
    """A detector whose probabilities name samples: of each window the first of its context, or of itself, or the last.

    A state grows by the number of windows that its stream had, and so tells how they were joined to streams.
    """

    def __init__(self) -> None:
        self.place = 0
        self.calls = 0

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        self.calls += 1
        counts = np.array([len(one) for one in windows], np.float32)[:, None, None]
        return [one[:, self.place].copy() for one in windows], states + counts


class Reader(FakeRecognizer):
    """Answers with what it was given: the first and the last sample as times, and the rest as the state of a chunk."""

    vocabulary = ("no", "▁yes", "▁maybe")

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        return [
            Hypothesis((Token(1, "▁yes", len(own), audio.duration, 0.5), Token(2, "▁maybe", *ends(audio.samples), 0)))
            for audio, own in zip(batch, phrases, strict=True)
        ]

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        results = []
        for chunk, own in zip(batch, phrases, strict=True):
            assert isinstance(chunk.audio, Audio)
            state = {"seen": chunk.state, "contexts": (chunk.left_context, chunk.right_context), "phrases": own}
            token = Token(0, "no", *ends(chunk.audio.samples), 0)
            results.append(ChunkResult((token,), (token, token), state if chunk.right_context else None))
        return results


def ends(samples: Samples) -> tuple[float, float]:
    return float(samples[0]), float(samples[-1])


def counting(count: int, first: int = 1) -> Samples:
    """Samples of which each is its own place, from `first`."""
    return np.arange(first, first + count, dtype=np.float32)


@pytest.fixture
def reader() -> Iterator[RunningDevice]:
    device = RunningDevice(Reader, BatchBudget(Cost(1.0, 10.0), seconds=8.0, items=16))
    yield device
    device.close()


@pytest.fixture
def audio() -> Iterator[SharedAudio]:
    with shared_audio() as made:
        yield made


def no_states(streams: int) -> DetectorStates:
    return np.zeros((streams, *DETECTOR_STATE_SHAPE), np.float32)


def link_of(device: RunningDevice) -> DeviceLink:
    return device.client._links[0]


def test_a_device_without_work_is_told_so_once_after_each_time_that_it_had_some(
    make: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(server, "IDLE_SECONDS", 0.2)
    device = make()

    async def work_and_rest() -> None:
        for times in (1, 2):
            assert await ask(device, 3) == [3]
            await asyncio.sleep(0.8)
            assert len(device.idle_at) == times

    device.run(work_and_rest())


def test_an_utterance_is_read_at_its_place_and_its_tokens_come_back_whole(
    reader: RunningDevice, audio: SharedAudio
) -> None:
    audio.append(counting(1000, first=0))

    class Item:
        def __init__(self, start: int, end: int) -> None:
            self.audio = audio.clip(start, end)

    async def items() -> AsyncGenerator[Item, None]:
        yield Item(100, 200)
        yield Item(0, 1000)

    async def main() -> list[list[Token]]:
        with reader.client.recording(audio) as queue:
            return [list(found.tokens) async for _, found in queue.recognize(items(), phrases=("Zürich", "Q3"))]

    first, second = reader.run(main())
    assert first == [Token(1, "▁yes", 2, 100 / 16_000, 0.5), Token(2, "▁maybe", 100, 199, 0)]
    assert second[1] == Token(2, "▁maybe", 0, 999, 0)


def test_a_chunk_has_its_contexts_and_the_state_of_the_chunk_before(reader: RunningDevice, audio: SharedAudio) -> None:
    audio.append(counting(5000, first=0))

    async def main() -> list[ChunkResult]:
        with reader.client.session(audio) as queue:
            first = await queue.decode_chunk(Chunk(audio.clip(0, 3000), 0, 1280, None), phrases=("Q3",))
            assert isinstance(first.state, bytes)  # only the device process reads it
            part = audio.clip(1000, 5000).slice(Span(280, 4000))
            second = await queue.decode_chunk(Chunk(part, 640, 320, first.state))
            last = await queue.decode_chunk(Chunk(audio.clip(4000, 5000), 0, 0, second.state))
            return [first, second, last]

    results = reader.run(main())
    times = [[(token.start, token.end) for token in (*one.stable, *one.unstable)] for one in results]
    assert times == [[(0, 2999)] * 3, [(1280, 4999)] * 3, [(4000, 4999)] * 3]
    assert [token.piece for token in results[0].stable] == ["no"]
    assert results[2].state is None
    assert isinstance(results[1].state, bytes)
    seen = pickle.loads(results[1].state)
    assert seen["contexts"] == (640, 320)
    assert seen["seen"] == {"seen": None, "contexts": (0, 1280), "phrases": ("Q3",)}


@pytest.mark.parametrize(
    ("place", "expected"),
    [
        (0, [0, 449, 961]),  # zeros before the first sample, then the end of the window before
        (CONTEXT_SAMPLES, [1, 513, 1025]),
        (CONTEXT_SAMPLES + WINDOW_SAMPLES - 1, [512, 1024, 0]),  # zeros after the last sample
    ],
)
def test_a_recording_is_detected_in_windows_with_context(make: Make, place: int, expected: list[float]) -> None:
    prober = Prober()
    prober.place = place
    device = make(detector=prober)

    async def main() -> tuple[Probabilities, DetectorStates]:
        with shared_audio() as audio, device.client.recording(audio) as queue:
            audio.append(counting(1200))
            return await queue.detect(0, 3, no_states(1) + 7)

    found, states = device.run(main())
    assert found.tolist() == expected
    np.testing.assert_array_equal(states, no_states(1) + 10)


def test_windows_that_begin_in_the_middle_have_the_samples_before_as_context(make: Make) -> None:
    device = make(detector=Prober())

    async def main() -> list[float]:
        with shared_audio() as audio, device.client.recording(audio) as queue:
            audio.append(counting(4096))
            near, _ = await queue.detect(32, 1, no_states(1))  # half of its context is before the first sample
            far, _ = await queue.detect(1024, 2, no_states(1))
            return [*near.tolist(), *far.tolist()]

    assert device.run(main()) == [0, 1024 - CONTEXT_SAMPLES + 1, 1536 - CONTEXT_SAMPLES + 1]


def test_several_sources_of_different_lengths_are_detected_in_one_call(make: Make) -> None:
    prober = Prober()
    prober.place = CONTEXT_SAMPLES
    device = make(detector=prober)
    counts = [3, 0, 1, 2, *[1] * MAX_DESCRIPTORS]  # more sources than one message has descriptors

    async def main() -> tuple[list[Probabilities], DetectorStates]:
        link = link_of(device)
        audios = [SharedAudio() for _ in counts]
        sources = [link.open(audio) for audio in audios]
        for number, audio in enumerate(audios):
            audio.append(counting(2048, first=10_000 * number))
        states = no_states(len(counts)) + np.arange(len(counts), dtype=np.float32)[:, None, None]
        try:
            return await link.detect(sources, [512] * len(counts), counts, states)
        finally:
            for source, audio in zip(sources, audios, strict=True):
                link.close_source(source)
                audio.close()

    found, states = device.run(main())
    assert [one.tolist() for one in found] == [
        [10_000 * number + 512 * (1 + window) for window in range(count)] for number, count in enumerate(counts)
    ]
    assert states[:, 1, 127].tolist() == [number + count for number, count in enumerate(counts)]
    assert states.shape == (len(counts), *DETECTOR_STATE_SHAPE)
    assert prober.calls == 1


def test_a_device_without_a_detector_says_so(make: Make) -> None:
    device = make()

    async def main() -> None:
        with shared_audio(512) as audio, device.client.recording(audio) as queue:
            await queue.detect(0, 1, no_states(1))

    with pytest.raises(RecognitionError, match="no detector"):
        device.run(main())


def test_a_resampling_filter_is_made_in_the_folder_of_the_service(make: Make) -> None:
    device = make()
    with pytest.raises(FileNotFoundError):
        find_filter(device.paths.filters, 22_050)

    async def main() -> None:
        await asyncio.gather(*(device.client.make_filter(22_050) for _ in range(3)))

    device.run(main())
    assert find_filter(device.paths.filters, 22_050) is not None


def test_a_filter_that_cannot_be_made_is_an_error_of_who_asked(make: Make) -> None:
    device = make()
    device.paths.filters.rmdir()

    async def main() -> list[int]:
        with pytest.raises(RecognitionError, match="FileNotFoundError"):
            await device.client.make_filter(22_050)
        return await ask(device, 3)

    assert device.run(main()) == [3]


def test_a_front_of_another_version_is_refused(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    device = make()
    monkeypatch.setattr(messages, "VERSION", messages.VERSION + 1)
    link = DeviceLink(device.paths.device(0), device.paths.ledger(0))
    with pytest.raises(StartupError, match="version"):
        link.connect(lambda: None)
    link.close()


def test_a_front_that_waits_for_a_device_ends_when_its_check_raises(make: Make) -> None:
    device = make()
    link = DeviceLink(device.paths.folder / "nobody.sock", device.paths.ledger(0))
    checks: list[None] = []

    def check() -> None:
        checks.append(None)
        if len(checks) == 3:
            raise StartupError("the device can't be loaded")

    with pytest.raises(StartupError, match="loaded"):
        link.connect(check)


def test_only_the_user_of_the_service_may_connect(make: Make) -> None:
    device = make()
    assert device.run(ask(device, 1)) == [1]
    mode = device.paths.device(0).stat().st_mode
    assert stat.S_ISSOCK(mode)
    assert stat.S_IMODE(mode) == 0o600


def test_200_recordings_that_begin_in_one_turn_of_the_loop_are_each_read_from_their_own_audio(
    reader: RunningDevice,
) -> None:
    async def main() -> list[Token]:
        link = link_of(reader)
        audios = [SharedAudio() for _ in range(200)]
        sources = [link.open(audio) for audio in audios]
        for number, audio in enumerate(audios):
            audio.append(counting(10, first=10 * number))
        asked = [
            link.recognize(source, audio.clip(0, 10), priority=Priority.SHORT, owner=number, phrases=())
            for number, (source, audio) in enumerate(zip(sources, audios, strict=True))
        ]
        found = await asyncio.gather(*asked)
        for source, audio in zip(sources, audios, strict=True):
            link.close_source(source)
            audio.close()
        return [one.tokens[1] for one in found]

    assert [(token.start, token.end) for token in reader.run(main())] == [(10 * n, 10 * n + 9) for n in range(200)]


def test_a_caller_who_leaves_in_the_turn_in_which_it_asked_does_no_harm(make: Make, echo: Echo) -> None:
    device = make()

    async def main() -> list[int]:
        link = link_of(device)
        with shared_audio(5) as audio:
            source = link.open(audio)
            link.recognize(source, audio.clip(0, 5), priority=Priority.SHORT, owner=0, phrases=()).cancel()
            link.close_source(source)
        return await ask(device, 3)

    assert device.run(main()) == [3]
    assert device.ledger.waiting_seconds() == 0


def test_answers_are_those_of_the_requests_in_whatever_order_they_come(make: Make, echo: Echo) -> None:
    """Live chunks overtake, and each future still has its own answer."""
    device = make(budget=0.001)

    async def main() -> list[int]:
        link = link_of(device)
        with shared_audio(1000) as audio:
            source = link.open(audio)
            slow = [
                link.recognize(source, audio.clip(0, n), priority=Priority.LONG, owner=0, phrases=())
                for n in range(100, 110)
            ]
            fast = [
                link.decode_chunk(source, audio.clip(0, n), left_context=0, right_context=0, state=None, phrases=())
                for n in range(200, 210)
            ]
            live = [numbers_of((await one).stable)[0] for one in fast]
            long = [numbers_of((await one).tokens)[0] for one in slow]
            link.close_source(source)
            return live + long

    assert device.run(main()) == [*range(200, 210), *range(100, 110)]
