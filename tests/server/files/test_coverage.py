"""`include[]=coverage` on the real route, over the tiny model made to lose words."""

from __future__ import annotations

import json
import logging
import random
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import httpx
import pytest

from parakeet_stt.audio import Audio
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.steps.transfer import Deferred
from parakeet_stt.server.app import create_app
from parakeet_stt.server.http.middleware import RequestMiddleware
from parakeet_stt.server.monitoring import logs
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis
from tests import contract
from tests.conftest import Sample
from tests.parts import Front, front_over

LOST = 0.4  # of an utterance
WORD_SECONDS = 0.4  # a word's time and its neighbour's, each off by a fifth of a second


class Lossy(Parakeet):
    """The tiny model, which may lose a part of an utterance, and in a retry everything."""

    def __init__(self, pick: random.Random, loses: threading.Event) -> None:
        super().__init__(BUNDLED_FILE, device="cpu")
        self._pick = pick
        self._loses = loses

    def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Deferred[list[Hypothesis]]:
        true = super().launch(batch, phrases).result()
        found = [self._lose(one, audio.duration) for one, audio in zip(true, batch, strict=True)]
        return Deferred(lambda: found)

    def _lose(self, found: Hypothesis, seconds: float) -> Hypothesis:
        if not self._loses.is_set() or self._pick.random() < 0.5:
            return found
        if seconds < 6:
            return Hypothesis(())
        begin = self._pick.uniform(0, 1 - LOST) * seconds
        return Hypothesis([token for token in found.tokens if not begin <= token.start < begin + LOST * seconds])


class Served:
    """A front over such a model, whose app is asked without a socket."""

    def __init__(self) -> None:
        self.loses = threading.Event()
        self.front: Front = front_over(lambda: Lossy(random.Random(19), self.loses))

    def ask(self, sample: Sample, **fields: Any) -> httpx.Response:
        async def main() -> httpx.Response:
            app, components = create_app(has_page=False), self.front.components
            app.state.components = components
            asked = RequestMiddleware(app, context=lambda: components.request_context)
            async with httpx.AsyncClient(transport=httpx.ASGITransport(app=asked), base_url="http://test") as client:
                return await client.post(
                    "/v1/audio/transcriptions", data={"model": "whisper-1", **fields}, timeout=120,
                    files={"file": sample.path.read_bytes()}, headers={"x-request-id": "req_mine"},
                )  # fmt: skip

        return self.front.run(main())


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    served = Served()
    yield served
    served.front.close()


def test_each_word_that_was_lost_is_found_again_or_listed_and_operators_are_told(
    served: Served, samples: dict[str, Sample], caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    served.loses.set()
    fields: dict[str, Any] = {"include[]": "coverage", "timestamp_granularities[]": ["word", "segment"]}
    ids: list[str | None] = []  # that are in force where a line is logged

    def note(_: logging.LogRecord) -> bool:
        ids.append(logs.request_id.get())
        return True

    monkeypatch.setattr(caplog.handler, "filters", [note])
    with caplog.at_level(logging.WARNING, "parakeet_stt"):
        answer = served.ask(samples["two-minutes"], response_format="verbose_json", **fields)
    body = answer.json()
    contract.check(body, contract.VERBOSE_COVERAGE)
    speech, words = body["speech"], body["words"]
    for one in speech["uncovered"]:
        assert not any(word["start"] < one["end"] - 0.002 and word["end"] > one["start"] + 0.002 for word in words)
    lost = 0
    for known in samples["two-minutes"].words:
        middle = (known["start"] + known["end"]) / 2
        is_there = any(word["start"] - WORD_SECONDS <= middle <= word["end"] + WORD_SECONDS for word in words)
        assert is_there or any(one["start"] <= middle <= one["end"] for one in speech["uncovered"]), known
        lost += not is_there
    assert lost > 5
    left = sum(one["end"] - one["start"] for one in speech["uncovered"])
    assert 0 < speech["seconds"] - speech["covered_seconds"] <= left + 0.01
    (warned,) = [record.getMessage() for record in caplog.records]
    assert warned.startswith("speech without words, also in second tries: ")
    assert ids == [answer.headers["x-request-id"]]


def test_nothing_is_listed_where_nothing_was_lost_and_a_stream_ends_with_the_same(
    served: Served, samples: dict[str, Sample]
) -> None:
    served.loses.clear()
    for name in ("short", "two-sentences"):
        asked = {"include[]": "coverage"}
        body = served.ask(samples[name], response_format="verbose_json", **asked).json()
        assert body["text"] == samples[name].text
        assert body["speech"]["uncovered"] == []
        assert 0.5 * samples[name].seconds < body["speech"]["covered_seconds"] == body["speech"]["seconds"]
        events = served.ask(samples[name], stream="true", **asked).text.strip().split("\n\n")
        done = json.loads(events[-1].removeprefix("data: "))
        contract.check(done, contract.DONE_COVERAGE)
        assert done["speech"] == body["speech"]
        assert "speech" not in served.ask(samples[name], response_format="verbose_json").json()
        assert '"speech"' not in served.ask(samples[name], stream="true").text


def test_metrics_count_speech_and_what_of_it_has_no_words(served: Served, samples: dict[str, Sample]) -> None:
    served.loses.clear()
    before = seconds_counted(served)
    body = served.ask(samples["short"], response_format="verbose_json", **{"include[]": "coverage"}).json()
    after = seconds_counted(served)
    assert after[0] - before[0] == pytest.approx(body["speech"]["seconds"], abs=0.001)
    assert after[1] == before[1] > 0


def seconds_counted(served: Served) -> tuple[float, float]:
    lines = served.front.device.metrics.exposition()[0].decode().splitlines()
    values = dict(line.rsplit(" ", 1) for line in lines if not line.startswith("#"))
    return float(values["stt_speech_seconds_total"]), float(values["stt_uncovered_speech_seconds_total"])


@pytest.mark.parametrize("fields", [{}, {"response_format": "text"}, {"response_format": "srt"}])
def test_coverage_is_refused_where_there_is_no_place_for_it(
    served: Served, samples: dict[str, Sample], fields: dict[str, str]
) -> None:
    response = served.ask(samples["short"], **{"include[]": "coverage"}, **fields)
    assert response.status_code == 400
    assert response.json()["error"]["param"] == "include"
    assert "verbose_json, or stream=true" in response.json()["error"]["message"]
