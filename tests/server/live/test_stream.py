"""Live sessions over the real model, without sockets: what is lost when something breaks under them, what is not."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import pytest

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.protocols import Chunk, ChunkResult
from parakeet_stt.server.live import stream as live_sessions
from parakeet_stt.server.live.stream import LiveOptions
from parakeet_stt.streaming.chunk_decoder import ChunkRules, Failed, Final
from parakeet_stt.streaming.session import Event
from parakeet_stt.text.phrases import Phrases
from tests.conftest import Sample
from tests.parts import components_over
from tests.sockets import every, frames, pcm

SESSIONS = 20


class Fragile(Parakeet):
    """The real model; before each step that `breaks` names, something is raised instead."""

    breaks: dict[int, BaseException]
    steps = 0

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        number, self.steps = self.steps, self.steps + 1
        broken = self.breaks.pop(number, None)
        if isinstance(broken, MemoryError) and len(batch) == 1:  # for one chunk alone it would be final: later, then
            self.breaks[number + 1] = broken
        elif broken is not None:
            raise broken
        return super().decode_chunks(batch, phrases)


class Broken:
    """A service over the fragile model."""

    def __init__(self, breaks: dict[int, BaseException]) -> None:
        thread = ThreadPoolExecutor(1)
        self.model_under = thread.submit(lambda: Fragile(BUNDLED_FILE, device="cpu")).result()
        self.model_under.breaks = breaks
        self.components = components_over(self.model_under, thread)


async def events_of(serving: Broken, data: bytes, options: LiveOptions) -> list[Event]:
    """All events of one session, in frames of 100 ms, some time apart."""
    live = serving.components.sessions.open_stream(options)
    try:
        for frame in frames(data, every(100)):
            await live.receive_audio(frame)
            await asyncio.sleep(0.001)
        await live.finish()
        return [event async for event in live.events()]
    finally:
        await live.close()


def texts(events: Sequence[Event]) -> list[str]:
    return [" ".join(word.text for word in event.words) for event in events if isinstance(event, Final)]


async def many(serving: Broken, parts: Sequence[bytes], options: LiveOptions) -> list[list[Event]]:
    async with asyncio.timeout(120):
        return await asyncio.gather(*(events_of(serving, part, options) for part in parts))


@pytest.mark.parametrize("steps", [ChunkRules(), ChunkRules(length=None)], ids=["partials", "finals"])
def test_the_devices_thread_dies_amid_twenty_sessions_and_all_get_their_full_text(
    samples: dict[str, Sample], steps: ChunkRules, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Who is behind has more recognized at once, which depends on the machine and may change a word.
    monkeypatch.setattr(live_sessions, "HURRY_SECONDS", float("inf"))
    sample = samples["two-minutes"]
    audio = sample.audio().samples
    starts = [int(word["start"] * SAMPLE_RATE) for word in sample.words[::10]][:SESSIONS]
    parts = [pcm(audio[start : start + 4 * SAMPLE_RATE]) for start in starts]
    options = LiveOptions(chunk_rules=steps)
    serving = Broken({})
    expected = asyncio.run(many(serving, parts, options))
    serving.model_under.breaks = {
        serving.model_under.steps + 3: SystemExit("killed"),
        serving.model_under.steps + 9: MemoryError(),
    }
    threads = threading.active_count()
    found = asyncio.run(many(serving, parts, options))
    assert [texts(events) for events in found] == [texts(events) for events in expected]
    assert serving.components.is_alive
    assert threading.active_count() <= threads
    assert b"stt_device_restarts_total 1.0" in serving.components.metrics.exposition()[0]
    serving.components.close()


def test_a_step_that_the_model_fails_on_costs_its_own_utterance_and_no_other(samples: dict[str, Sample]) -> None:
    sample = samples["two-sentences"]
    data = pcm(sample.audio().samples)
    serving = Broken({0: ValueError("poisoned")})
    (events,) = asyncio.run(many(serving, [data], LiveOptions(chunk_rules=ChunkRules(length=None))))
    over = [event for event in events if isinstance(event, Final | Failed)]
    assert [type(event) for event in over] == [Failed, *[Final] * (len(over) - 1)]
    assert sample.text.endswith(" ".join(texts(events)))
    serving.components.close()


def test_what_kills_the_thread_each_time_is_given_up(samples: dict[str, Sample]) -> None:
    data = pcm(samples["short"].audio().samples)
    serving = Broken({0: SystemExit("killed"), 1: SystemExit("killed again")})
    (events,) = asyncio.run(many(serving, [data], LiveOptions(chunk_rules=ChunkRules(length=None))))
    assert [type(event) for event in events if isinstance(event, Final | Failed)] == [Failed]
    (events,) = asyncio.run(many(serving, [data], LiveOptions(chunk_rules=ChunkRules(length=None))))
    assert texts(events) == [samples["short"].text]
    serving.components.close()
