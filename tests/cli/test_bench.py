"""`parakeet bench` against a real server and one that is not there."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest
from typer.testing import CliRunner

from parakeet_stt.cli.app import app
from parakeet_stt.measure.api import Target
from parakeet_stt.measure.live_load import Speaker, Spoken
from tests.conftest import SAMPLES, Server, free_port


def test_a_server_and_one_that_is_away(server: Server, tmp_path: Path) -> None:
    page = tmp_path / "bench.html"
    away = f"http://127.0.0.1:{free_port()}"
    result = CliRunner().invoke(app, [
        "bench", f"ours={server.url}", f"away={away}/v1", "--audio", str(SAMPLES / "short.flac"), "--clips", "4",
        "--lengths", "1,4", "--callers", "1,4", "--shares", "0.5", "--speakers", "2", "--seconds", "2", "--json",
        "--html", str(page), "--api-key", "secret",
    ])  # fmt: skip
    assert result.exit_code == 1  # one could not be measured
    ours, other = map(json.loads, result.stdout.splitlines())
    assert (ours["failure"], ours["unsupported"], ours["notes"]) == (None, {}, [])
    closed, more, opened = ours["loads"]
    assert (closed["callers"], more["callers"], opened["callers"]) == (1, 4, 0)
    assert opened["rate"] > 0
    for load in ours["loads"]:
        assert load["requests"] > 0
        assert (load["errors"], load["changed"], load["mixed_up"]) == ({}, 0, 0)
        assert 0 < load["delays"]["p50_ms"] <= load["delays"]["p99_ms"]
        assert load["rtfx"] > 0.5
    alone, two = ours["live"]
    assert (alone["speakers"], two["speakers"]) == (1, 2)
    for live in ours["live"]:
        assert live["errors"] == {}
        assert live["phrases"] >= 2 * live["speakers"]
        assert 500 < live["final_p50"] < 5000  # the server waits for a pause of 500 ms
        assert 0 < live["words_p50"] < 8000
    assert two["changed"] == two["mixed_up"] == 0
    assert "ConnectError" in other["failure"]
    assert other["loads"] == []
    assert set(other["unsupported"]) == {"models", "words", "stream", "realtime"}
    html = page.read_text()
    assert html.count("<svg") == 4
    assert "nothing was measured: ConnectError" in html
    assert "secret" not in html


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--callers", "1,x"], "numbers above 0"),
        (["--callers", "0"], "numbers above 0"),
        (["--lengths", "5"], "the shortest and the longest"),
        (["--audio", "none.wav"], "none.wav"),
    ],
)
def test_wrong_commands_are_refused(arguments: list[str], message: str) -> None:
    result = CliRunner().invoke(app, ["bench", "http://127.0.0.1:9", *arguments])
    assert result.exit_code == 2
    assert message in " ".join(result.output.replace("│", " ").split())


def test_items_go_to_the_phrase_in_which_their_speech_began() -> None:
    """Servers may end a phrase in the middle, and answer after the next one has begun."""

    async def receive() -> Speaker:
        speaker = Speaker(Target("x", "http://127.0.0.1:9/v1"), [Spoken((), 2.0), Spoken((), 2.0)], 0)
        began = speaker.begin(0, at=100.0)
        began = speaker.begin(1, at=103.52)
        assert began.ended == 105.52
        event = "conversation.item.input_audio_transcription."
        started = "input_audio_buffer.speech_started"
        speaker.receive({"type": started, "item_id": "a", "audio_start_ms": 0}, 100.3)
        speaker.receive({"type": started, "item_id": "b", "audio_start_ms": 1500}, 101.9)
        speaker.receive({"type": event + "delta", "item_id": "a", "delta": "the"}, 101.0)
        speaker.receive({"type": event + "completed", "item_id": "a", "transcript": "The old"}, 102.0)
        speaker.receive({"type": started, "item_id": "c", "audio_start_ms": 3300}, 103.9)
        speaker.receive({"type": event + "completed", "item_id": "b", "transcript": "man."}, 104.0)
        speaker.receive({"type": event + "failed", "item_id": "c", "error": {"message": "no"}}, 106.0)
        return speaker

    first, second = asyncio.run(receive()).utterances
    assert (first.text, first.first_words, first.final, first.ended) == ("The old man.", 101.0, 104.0, 102.0)
    assert (second.text, second.final) == ("", None)
    assert "no" in second.failure
