"""Clips that are cut from speech, and what a load counts."""

from __future__ import annotations

import asyncio
import time

import httpx
import numpy as np
import pytest

from parakeet_stt.measure.api import Answer, Clients, Target, read_message
from parakeet_stt.measure.clips import RATE, Clip, cut_clips, cut_phrases, decode, join, resample
from parakeet_stt.measure.load import Load, Request, compare_text, percentiles_ms
from parakeet_stt.measure.pages.plots import Axis, Series, draw
from tests.conftest import SAMPLES, Sample


def test_clips_have_mixed_lengths_and_are_the_same_each_time() -> None:
    samples = decode((SAMPLES / "two-minutes.flac").read_bytes())
    clips = cut_clips(samples, 20, 1, 30)
    assert clips == cut_clips(samples, 20, 1, 30)
    assert all(1 <= clip.seconds <= 30 and len(decode(clip.data)) == round(clip.seconds * RATE) for clip in clips)
    assert max(clip.seconds for clip in clips) > 5 * min(clip.seconds for clip in clips)
    assert len({clip.data for clip in clips}) == 20


def test_a_clip_longer_than_the_recording_goes_on_from_its_beginning() -> None:
    samples = np.arange(1, RATE + 1, dtype=np.int16)
    (clip,) = cut_clips(samples, 1, 3, 3)
    assert decode(clip.data).tolist() == np.tile(samples, 3).tolist()


def test_phrases_lie_between_pauses(samples: dict[str, Sample]) -> None:
    sample = samples["short"]
    recording = decode(sample.path.read_bytes())
    times = {word["word"]: (word["start"], word["end"]) for word in sample.words}
    first, second = cut_phrases(recording, 0.5, 20.0)
    for phrase, begins, ends in ((first, "If", "good,"), (second, "everyone", "question.")):
        start = recording.tobytes().index(phrase.samples.tobytes()) / 2 / RATE
        assert start == pytest.approx(times[begins][0], abs=0.02)
        assert start + phrase.seconds == pytest.approx(times[ends][1], abs=0.02)
    assert len(list(cut_phrases(recording, 2.0, 20.0))) == 1
    assert not list(cut_phrases(np.zeros(RATE, np.int16), 0.1, 20.0))


def test_joined_recordings_keep_their_speech_apart() -> None:
    one = np.ones(RATE, np.int16)
    assert len(join([one, one])) == 3 * RATE
    assert len(resample(one, 24_000)) == pytest.approx(24_000, abs=64)


UNLOADED = ["the old man opened a small dog", "where is a package", "there are eleven boxes at the airport"]


def test_a_changed_text_is_told_from_another_clip_s() -> None:
    assert compare_text(UNLOADED[0], 0, UNLOADED).is_changed is False
    slightly = compare_text("the old man opened a small door", 0, UNLOADED)
    assert (slightly.is_changed, slightly.is_mixed_up, slightly.words) == (True, False, 1)
    foreign = compare_text(UNLOADED[2], 0, UNLOADED)
    assert (foreign.is_changed, foreign.is_mixed_up) == (True, True)
    nearly_foreign = compare_text("there are eleven boxes at an airport", 0, UNLOADED)
    assert nearly_foreign.is_mixed_up
    nothing = compare_text("", 0, UNLOADED)
    assert (nothing.is_changed, nothing.is_mixed_up) == (True, False)
    assert compare_text("anything", 0, ()).is_changed is False


def make_load(seconds: float) -> Load:
    clips = [Clip("a.wav", b"", 10.0), Clip("b.wav", b"", 2.0), Clip("c.wav", b"", 4.0)]
    return Load(Clients(5.0), Target("x", "http://127.0.0.1:9/v1"), clips, seconds)


def test_requests_at_once_have_a_client_each_and_later_ones_use_them_again() -> None:
    """One client with 64 connections took 10 ms a request, and the server that was measured seemed as slow."""

    async def use() -> None:
        async with Clients(5.0) as clients:
            async with clients.one() as first, clients.one() as second:
                assert first is not second
            async with clients.one() as third, clients.one() as fourth:
                assert {third, fourth} == {first, second}
        assert first.is_closed
        assert second.is_closed

    asyncio.run(use())


def test_only_what_begins_after_the_warm_up_counts() -> None:
    load = make_load(8.0)
    at = load.counting_from
    load.requests = [
        Request(0, at - 1, at + 1, Answer(UNLOADED[0])),
        Request(1, at + 1, at + 2, Answer(UNLOADED[1])),
        Request(2, at + 2, at + 3, Answer(UNLOADED[1])),
        Request(1, at + 3, at + 4, Answer(error="500: it broke")),
        Request(1, at + 5, at + 7, Answer(UNLOADED[1])),  # ends after the load, so half of its audio counts
        Request(1, at + 7, at + 8, Answer(UNLOADED[1])),
    ]
    found = load.sum_up(UNLOADED, callers=3)
    assert (found.load, found.requests) == ("3 callers", 4)
    assert found.delays == pytest.approx((1.0, 1.0, 2.0))
    assert found.errors == {"500: it broke": 1}
    assert (found.changed, found.mixed_up) == (1, 1)
    assert found.rtfx == pytest.approx((10 / 2 + 2 + 4 + 2 / 2) / 6)
    assert found.changed_words == pytest.approx(100 * 7 / 15)


def test_a_server_that_is_away_is_an_error_and_no_exception() -> None:
    load = make_load(0.3)
    asyncio.run(load.run_closed(2))
    found = load.sum_up(UNLOADED, callers=2)
    assert found.requests == found.failed > 0
    assert "ConnectError" in next(iter(found.errors))
    assert all(np.isnan(percentiles_ms(found.delays, 50, 99)))


def test_an_open_loop_waits_for_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    async def answer_late(*_: object) -> Answer:
        await asyncio.sleep(0.5)
        return Answer(UNLOADED[0])

    monkeypatch.setattr("parakeet_stt.measure.load.transcribe", answer_late)
    load = make_load(0.4)
    began = time.monotonic()
    asyncio.run(load.run_open(50.0))
    assert 8 < len(load.requests) < 40  # twenty in the mean; one after another there would be one
    assert time.monotonic() - began >= 0.5
    assert all(one.seconds >= 0.5 for one in load.requests)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ({"json": {"error": {"message": "too long", "code": "x"}}}, "too long"),
        ({"json": {"detail": "Model not found"}}, "Model not found"),
        ({"json": {"detail": [{"loc": ["body", "file"]}]}}, '[{"loc": ["body", "file"]}]'),
        ({"text": "Internal\nServer Error"}, "Internal Server Error"),
        ({"text": ""}, "Internal Server Error"),
    ],
)
def test_errors_of_any_server_are_read(body: dict[str, object], message: str) -> None:
    assert read_message(httpx.Response(500, **body)) == message  # type: ignore[arg-type]


def test_a_plot_has_a_line_for_each_server_and_escapes_names() -> None:
    plot = draw(
        "speed", Axis("callers", is_log=True), Axis("ms"), [Series("a<b", ((1, 5), (8, 10))), Series("c", ((1, 1),))]
    )
    assert plot.count("<polyline") == 2
    assert "a&lt;b" in plot
    assert "a<b" not in plot
    assert draw("live", Axis("x"), Axis("y"), [Series("a", ((float("nan"), 1),))]).startswith('<p class="none">live')
