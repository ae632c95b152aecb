"""Live sessions over the real model, without sockets: what is lost when something breaks under them, what is not."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any, TypeVar

import pytest

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.link import MAX_LOSSES
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.engines.steps.transfer import Deferred
from parakeet_stt.errors import RecognitionError
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult, DetectorStates, SpeechDetector
from parakeet_stt.server.live import stream as live_sessions
from parakeet_stt.server.live.stream import LiveOptions
from parakeet_stt.streaming.chunk_decoder import ChunkRules, Failed, Final
from parakeet_stt.streaming.endpointer import EndpointRules
from parakeet_stt.streaming.turns import Event
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.vad import Probabilities, Windows
from tests.conftest import Sample
from tests.parts import front_over
from tests.sockets import every, frames, pcm

SESSIONS = 20
FINALS = LiveOptions(chunk_rules=ChunkRules(length=None))
T = TypeVar("T")


class Breaks:
    """What is raised instead of some steps, by their numbers; the steps are counted over all devices that start.

    pace: called before each step.
    """

    def __init__(self, breaks: dict[int, BaseException]) -> None:
        self.breaks = breaks
        self.steps = 0
        self.pace: Callable[[], object] = lambda: None


class Fragile(Parakeet):
    """The real model; before each step that `plan` names, something is raised instead."""

    plan: Breaks

    def launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Deferred[list[ChunkResult]]:
        plan = self.plan
        number, plan.steps = plan.steps, plan.steps + 1
        plan.pace()
        broken = plan.breaks.pop(number, None)
        if isinstance(broken, MemoryError) and len(batch) == 1:  # for one chunk alone it would be final: later, then
            plan.breaks[number + 1] = broken
        elif broken is not None:
            raise broken
        return super().launch_chunks(batch, phrases)


@cache
def fragile() -> Fragile:
    """Loaded once: one device after the other owns it, and none breaks in the middle of a step."""
    return Fragile(BUNDLED_FILE, device="cpu")


class Broken:
    """A front over the fragile model, whose device is started again whenever it ends. restarts: how often.

    load_seconds: for which a start takes longer.
    """

    def __init__(self, breaks: dict[int, BaseException], detector: SpeechDetector | None) -> None:
        self.plan = Breaks(breaks)
        self.load_seconds = 0.0
        self.front = front_over(self._load, detector=detector)
        self.restarts = 0

    def _load(self) -> Fragile:
        time.sleep(self.load_seconds)
        model = fragile()
        model.plan = self.plan
        return model

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that uses the front's components."""

        async def main() -> T:
            supervising = asyncio.create_task(self._supervise())
            try:
                async with asyncio.timeout(120):
                    return await work
            finally:
                supervising.cancel()

        return self.front.run(main())

    async def _supervise(self) -> None:
        while True:
            await asyncio.sleep(0.01)
            if not self.front.device.thread.is_alive():
                self.restarts += 1
                self.front.device.start()


@contextmanager
def broken(breaks: dict[int, BaseException], *, detector: SpeechDetector | None = None) -> Iterator[Broken]:
    serving = Broken(breaks, detector)
    try:
        yield serving
    finally:
        serving.front.close()


async def events_of(serving: Broken, data: bytes, options: LiveOptions) -> list[Event]:
    """All events of one session, in frames of 100 ms, some time apart."""
    async with serving.front.components.sessions.open_stream(options) as live:
        for frame in frames(data, every(100)):
            await live.receive_audio(frame)
            await asyncio.sleep(0.001)
        await live.finish()
        return [event async for event in live.events()]


def texts(events: Sequence[Event]) -> list[str]:
    return [" ".join(word.text for word in event.words) for event in events if isinstance(event, Final)]


async def many(serving: Broken, parts: Sequence[bytes], options: LiveOptions) -> list[list[Event]]:
    return await asyncio.gather(*(events_of(serving, part, options) for part in parts))


@pytest.mark.parametrize(
    ("steps", "on_device"),
    [(ChunkRules(), False), (ChunkRules(length=None), True)],
    ids=["partials, the front detects", "finals, the device detects"],
)
def test_the_devices_thread_dies_amid_twenty_sessions_and_all_get_their_full_text(
    samples: dict[str, Sample], steps: ChunkRules, on_device: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who is behind has more recognized at once, which depends on the machine and may change a word.
    monkeypatch.setattr(live_sessions, "HURRY_SECONDS", float("inf"))
    sample = samples["two-minutes"]
    audio = sample.audio().samples
    starts = [int(word["start"] * SAMPLE_RATE) for word in sample.words[::10]][:SESSIONS]
    parts = [pcm(audio[start : start + 4 * SAMPLE_RATE]) for start in starts]
    options = LiveOptions(chunk_rules=steps)
    with broken({}, detector=OnnxDetector() if on_device else None) as serving:
        expected = serving.run(many(serving, parts, options))
        plan = serving.plan
        plan.breaks = {plan.steps + 3: SystemExit("killed"), plan.steps + 9: MemoryError()}
        found = serving.run(many(serving, parts, options))
        assert [texts(events) for events in found] == [texts(events) for events in expected]
        assert all(any(texts(events)) for events in found)
        assert serving.restarts == 1
        assert [type(one) for one in serving.front.device.lost] == [SystemExit]


def test_a_step_that_the_model_fails_on_costs_its_own_utterance_and_no_other(samples: dict[str, Sample]) -> None:
    sample = samples["two-sentences"]
    with broken({0: ValueError("poisoned")}) as serving:
        (events,) = serving.run(many(serving, [pcm(sample.audio().samples)], FINALS))
        over = [event for event in events if isinstance(event, Final | Failed)]
        assert len(over) > 1
        assert [type(event) for event in over] == [Failed, *[Final] * (len(over) - 1)]
        assert sample.text.endswith(" ".join(texts(events)))
        assert serving.restarts == 0


def test_what_ends_the_device_each_time_is_given_up_and_the_session_goes_on(samples: dict[str, Sample]) -> None:
    sample = samples["two-sentences"]
    data = pcm(sample.audio().samples)
    kills: dict[int, BaseException] = {number: SystemExit(f"killed {number}") for number in range(1 + MAX_LOSSES)}
    with broken({}) as serving:
        (expected,) = serving.run(many(serving, [data], FINALS))
        serving.plan.breaks, serving.plan.steps = kills, 0
        (events,) = serving.run(many(serving, [data], FINALS))
        over = [event for event in events if isinstance(event, Final | Failed)]
        assert [type(event) for event in over] == [Failed, *[Final] * (len(over) - 1)]
        assert texts(events) == texts(expected)[1:]
        assert serving.restarts == len(serving.front.device.lost) == 1 + MAX_LOSSES
        assert serving.front.device.ledger.waiting_seconds() == 0


class BreakingDetector(OnnxDetector):
    """The real detector, which fails while it is told to."""

    fails = False

    def detect(self, windows: Sequence[Windows], states: DetectorStates) -> tuple[list[Probabilities], DetectorStates]:
        if self.fails:
            raise ValueError("broken")
        return super().detect(windows, states)


def test_a_detector_that_fails_ends_the_sessions_that_asked_it_and_the_next_get_their_text(
    samples: dict[str, Sample],
) -> None:
    data, detector = pcm(samples["short"].audio().samples), BreakingDetector()
    with broken({}, detector=detector) as serving:

        async def main() -> list[Event]:
            detector.fails = True
            with pytest.raises(RecognitionError, match="broken"):
                await events_of(serving, data, FINALS)
            detector.fails = False
            return await events_of(serving, data, FINALS)

        assert texts(serving.run(main())) == [samples["short"].text]


@pytest.mark.parametrize(("seconds", "context_frames"), [(None, 63), ("1", 13)])
def test_a_chunk_has_as_much_audio_before_it_as_the_operator_sets(
    samples: dict[str, Sample], seconds: str | None, context_frames: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    if seconds:
        monkeypatch.setenv("STT_LIVE_CONTEXT_SECONDS", seconds)
    contexts: list[int] = []
    launch = Fragile.launch_chunks

    def note(model: Fragile, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Deferred[list[ChunkResult]]:
        contexts.extend(chunk.left_context for chunk in batch)
        return launch(model, batch, phrases)

    monkeypatch.setattr(Fragile, "launch_chunks", note)
    monkeypatch.setattr(live_sessions, "HURRY_SECONDS", float("inf"))
    sound = pcm(samples["two-minutes"].audio().samples[: 12 * SAMPLE_RATE])
    with broken({}) as serving:
        events = serving.run(events_of(serving, sound, LiveOptions(endpoint_rules=EndpointRules(silence_ms=2000))))
    assert max(contexts) == context_frames * FRAME_SAMPLES
    assert len(" ".join(texts(events)).split()) > 15
