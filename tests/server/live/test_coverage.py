"""Live speech without words: listed in its final, counted, and logged with the session's id."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Sequence
from contextvars import copy_context
from typing import Any

import pytest

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.steps.transfer import Deferred
from parakeet_stt.protocols import Chunk, ChunkResult
from parakeet_stt.server.live.ws import Hello
from parakeet_stt.server.monitoring import logs
from parakeet_stt.text.phrases import Phrases
from tests.conftest import Sample
from tests.parts import Front, front_over
from tests.server.live.test_connection import Wire, finals_in, session_over
from tests.sockets import END, every, frames, pcm

SHORT, LONG, LOST = 2.5, 3.5, (1.0, 3.0)  # utterances that are short lose everything, long ones a part; in seconds
WORD_SECONDS = 0.4  # a word's time and its neighbour's, each off by a fifth of a second


class Lossy(Parakeet):
    """The tiny model, which gives no words for some utterances, and for parts of others."""

    def launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Deferred[list[ChunkResult]]:
        results = super().launch_chunks(batch, phrases).result()
        found = [_lose(one, chunk.audio.duration) for one, chunk in zip(results, batch, strict=True)]
        return Deferred(lambda: found)


def _lose(found: ChunkResult, seconds: float) -> ChunkResult:
    lost = (0.0, seconds if seconds < SHORT else 0.0) if seconds < LONG else LOST
    return ChunkResult([one for one in found.stable if not lost[0] <= one.start < lost[1]], (), found.state)


@pytest.fixture(scope="module")
def front() -> Iterator[Front]:
    made = front_over(lambda: Lossy(BUNDLED_FILE, device="cpu"))
    yield made
    made.close()


def test_words_that_live_speech_has_lost_are_listed_and_operators_are_told(
    front: Front, samples: dict[str, Sample], caplog: pytest.LogCaptureFixture
) -> None:
    length = 60
    sound = pcm(samples["two-minutes"].audio().samples)[: length * 32_000]
    with caplog.at_level(logging.WARNING, "parakeet_stt"):
        finals = copy_context().run(finals_of, front, sound, Hello(coverage=True, words=True), "req_1")
    words = [word for one in finals for word in one["words"]]
    listed = [span for one in finals for span in one["speech"]["uncovered"]]
    assert len(listed) > 2
    for span in listed:
        assert not any(word["start"] < span["end"] - 0.002 and word["end"] > span["start"] + 0.002 for word in words)
    lost = 0
    for known in samples["two-minutes"].words:
        middle = (known["start"] + known["end"]) / 2
        if middle > length - 1:
            break
        is_there = any(word["start"] - WORD_SECONDS <= middle <= word["end"] + WORD_SECONDS for word in words)
        assert is_there or any(one["start"] <= middle <= one["end"] for one in listed), known
        lost += not is_there
    assert lost > 5

    (warned,) = [record.getMessage() for record in caplog.records]
    first = f"{listed[0]['start']:.2f} to {listed[0]['end']:.2f} s"
    assert warned.startswith(f"session req_1 has speech without words: {first}, ")
    lines = front.device.metrics.exposition()[0].decode().splitlines()
    counted = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    seconds, covered = (sum(one["speech"][name] for one in finals) for name in ("seconds", "covered_seconds"))
    near = 0.01 * len(finals)
    assert float(counted["stt_speech_seconds_total"]) == pytest.approx(seconds, abs=near)
    assert float(counted["stt_uncovered_speech_seconds_total"]) == pytest.approx(seconds - covered, abs=near)


def test_a_final_says_nothing_of_it_unless_that_is_asked_for(front: Front, samples: dict[str, Sample]) -> None:
    finals = finals_of(front, pcm(samples["short"].audio().samples), Hello(words=True))
    assert finals
    assert not any("speech" in one for one in finals)


def finals_of(front: Front, sound: bytes, hello: Hello, request: str | None = None) -> list[dict[str, Any]]:
    """Of one session of `/ws`. request: the id that the middleware gives the socket."""
    logs.request_id.set(request)
    wire = Wire([*frames(sound, every(100)), END], reads=1000)

    front.run(session_over(front, wire, hello))
    return finals_in(wire)
