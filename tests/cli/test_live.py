"""`parakeet live`: words as they are spoken, against a real server; and what it says when there is none."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import srt
from typer.testing import CliRunner, Result
from websockets.http11 import Request, Response
from websockets.sync.server import ServerConnection, serve

from parakeet_stt.cli.app import app
from parakeet_stt.cli.captions.words import Captions, render_srt
from tests.conftest import ROOT, Sample, Server
from tests.sockets import pcm

DELTA = "conversation.item.input_audio_transcription.delta"
COMPLETED = "conversation.item.input_audio_transcription.completed"


def live(*arguments: str, url: str, stdin: bytes = b"") -> Result:
    return CliRunner().invoke(
        app, ["live", *arguments, "--url", url], input=stdin, env={"OPENAI_API_KEY": None}, catch_exceptions=False
    )


def test_what_is_piped_in_is_printed_and_its_captions_have_its_times(
    server: Server, samples: dict[str, Sample], tmp_path: Path
) -> None:
    sample, file = samples["short"], tmp_path / "captions.srt"
    done = live("-", "--srt", str(file), url=server.url, stdin=pcm(sample.audio().samples))
    assert (done.exit_code, done.stdout) == (0, f"{sample.text}\n")
    (caption,) = srt.parse(file.read_text())
    assert caption.content == sample.text
    assert abs(caption.start.total_seconds() - sample.words[0]["start"]) < 0.5
    assert abs(caption.end.total_seconds() - sample.words[-1]["end"]) < 0.7


def test_programs_get_a_line_for_each_utterance_and_any_rate_will_do(
    server: Server, samples: dict[str, Sample]
) -> None:
    sound = samples["two-sentences"].audio().samples.repeat(2)
    lines = live("-", "--json", "--rate", "32000", "--delay", "xhigh", url=server.url, stdin=pcm(sound)).stdout
    said = [json.loads(line) for line in lines.splitlines()]
    assert " ".join(one["text"] for one in said) == samples["two-sentences"].text
    assert all(one["start"] < one["end"] for one in said)


def test_silence_and_nothing_at_all_are_no_error(server: Server) -> None:
    for sound in (b"", bytes(100), bytes(2 * 16_000)):
        done = live("-", url=server.url, stdin=sound)
        assert (done.exit_code, done.stdout) == (0, "")


def test_ctrl_c_ends_the_sound_and_the_last_words_still_come(
    server: Server, samples: dict[str, Sample], tmp_path: Path
) -> None:
    file = tmp_path / "captions.srt"
    command = [sys.executable, "-m", "parakeet_stt", "live", "-", "--srt", str(file), "--url", server.url]
    with subprocess.Popen(
        command, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as running:
        assert running.stdin
        assert running.stdout
        running.stdin.write(pcm(samples["short"].audio().samples))
        running.stdin.flush()
        first = running.stdout.read(4)  # a word, while the pipe is still open
        running.send_signal(signal.SIGINT)
        rest = running.stdout.read()
        assert running.wait(30) == 0
    assert (first + rest).decode() == f"{samples['short'].text}\n"
    assert samples["short"].text in file.read_text()


class Fake:
    """A server that ends sessions, or refuses them. refusals: statuses of the next handshakes."""

    def __init__(self) -> None:
        self.refusals: list[tuple[int, dict[str, str]]] = []
        self._server = serve(self._run, "127.0.0.1", 0, process_request=self._refuse)
        self.url = f"http://127.0.0.1:{self._server.socket.getsockname()[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever)
        self._thread.start()

    def close(self) -> None:
        self._server.shutdown()
        self._thread.join()

    def _refuse(self, connection: ServerConnection, _: Request) -> Response | None:
        if not self.refusals:
            return None
        status, headers = self.refusals.pop(0)
        response = connection.respond(HTTPStatus(status), json.dumps({"error": {"message": "not now"}}))
        for name, value in headers.items():
            response.headers[name] = value
        return response

    def _run(self, connection: ServerConnection) -> None:
        """The first words become final, then the server goes."""
        connection.recv()
        for event in (
            {"type": "session.updated"},
            {"type": "input_audio_buffer.speech_started", "item_id": "a", "audio_start_ms": 100},
            {"type": "input_audio_buffer.speech_stopped", "item_id": "a", "audio_end_ms": 900},
            {"type": COMPLETED, "item_id": "a", "transcript": "So far."},
        ):
            connection.send(json.dumps(event))
        connection.close(1001, "the server is about to end")


@pytest.fixture
def fake() -> Iterator[Fake]:
    running = Fake()
    yield running
    running.close()


def test_a_server_that_goes_away_costs_no_final_words(fake: Fake, tmp_path: Path) -> None:
    file = tmp_path / "captions.srt"
    done = live("-", "--srt", str(file), url=fake.url, stdin=bytes(16_000))
    assert (done.exit_code, done.stdout) == (3, "So far.\n")
    assert "the server is about to end" in done.stderr
    assert file.read_text() == "1\n00:00:00,100 --> 00:00:00,900\nSo far.\n\n"


def test_a_refused_key_ends_it_and_a_busy_server_is_asked_again_when_it_says(fake: Fake) -> None:
    fake.refusals = [(401, {})]
    done = live("-", url=fake.url)
    assert done.exit_code == 3
    assert "status 401: not now" in done.stderr
    fake.refusals = [(429, {"retry-after": "1"})]
    begin = time.monotonic()
    assert live("-", url=fake.url, stdin=bytes(16_000)).stdout == "So far.\n"
    assert time.monotonic() - begin >= 1


def test_a_server_that_is_not_there_is_one_line() -> None:
    done = live("-", "--give-up", "0", url="http://127.0.0.1:1")
    assert done.exit_code == 3
    assert "can't be reached" in done.stderr


def test_without_its_library_a_microphone_is_one_line_that_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "sounddevice", None)
    for arguments in ([], ["--devices"]):
        done = live(*arguments, url="http://127.0.0.1:1")
        assert done.exit_code == 1
        assert "pip install 'parakeet-stt[microphone]'" in done.stderr
        assert done.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [["sound.wav"], ["-", "--delay", "none"], ["-", "--rate", "96000"], ["-", "--srt", "/no/such/folder/captions.srt"]],
)
def test_wrong_arguments_are_refused(arguments: list[str]) -> None:
    assert live(*arguments, url="http://127.0.0.1:1").exit_code == 2


def event(kind: str, item: str, **body: Any) -> dict[str, Any]:
    return {"type": kind, "item_id": item, **body}


def test_words_of_the_next_utterance_wait_until_the_one_before_is_final() -> None:
    captions, printed = Captions(), []
    for one in (
        event("input_audio_buffer.speech_started", "a", audio_start_ms=0),
        event(DELTA, "a", delta="If the"),
        event("input_audio_buffer.speech_stopped", "a", audio_end_ms=900),
        event("input_audio_buffer.speech_started", "b", audio_start_ms=1000),
        event(DELTA, "b", delta="Who"),
        event(DELTA, "a", delta=" food"),
        event(COMPLETED, "a", transcript="If the food"),
        event(COMPLETED, "b", transcript="Who came?"),
        event("input_audio_buffer.speech_started", "c", audio_start_ms=2000),
        event("conversation.item.input_audio_transcription.failed", "c"),
    ):
        captions.receive(one)
        printed.append("".join(captions.new_text()))
    assert printed == ["", "If the", "", "", "", " food", "\nWho", " came?\n", "", ""]
    assert captions.is_complete
    assert [one.text for one in captions.new_finals()] == ["If the food", "Who came?"]
    assert [(cue.start.total_seconds(), cue.content) for cue in srt.parse(render_srt(captions))] == [
        (0.0, "If the food"), (1.0, "Who came?")
    ]  # fmt: skip
