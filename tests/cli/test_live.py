"""`parakeet live`: words as they are spoken, against a real server; and what it says when there is none."""

from __future__ import annotations

import json
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
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


class Cuts:
    """Stands in front of a server, and breaks each connection in which the next of `marks` is said; then it is away.

    Connections after the last mark are left alone.
    """

    def __init__(self, url: str, *marks: bytes, away_seconds: float = 1.2) -> None:
        host, port = url.removeprefix("http://").split(":")
        self._target, self._marks, self._away_seconds = (host, int(port)), list(marks), away_seconds
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._back_at = 0.0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            with suppress(OSError):
                client, _ = self._listener.accept()
                if time.monotonic() < self._back_at:
                    client.close()
                    continue
                server = socket.create_connection(self._target)
                for pump in ((client, server, False), (server, client, True)):
                    threading.Thread(target=self._pump, args=pump, daemon=True).start()

    def _pump(self, source: socket.socket, target: socket.socket, is_answer: bool) -> None:
        with suppress(OSError):
            while data := source.recv(1 << 16):
                target.sendall(data)
                if is_answer and self._marks and self._marks[0] in data:
                    self._marks.pop(0)
                    time.sleep(0.2)  # until it has been read: what is unread goes with the connection
                    self._back_at = time.monotonic() + self._away_seconds
                    break
        for one in (source, target):
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)


def test_a_server_that_comes_back_goes_on_and_nothing_is_lost_or_said_twice(
    server: Server, samples: dict[str, Sample], tmp_path: Path
) -> None:
    names = ("two-sentences", "short")
    sound = b"".join(pcm(samples[name].audio().samples) + bytes(2 * 16_000) for name in names)

    def captions_by(url: str) -> list[srt.Subtitle]:
        file = tmp_path / "captions.srt"
        done = live("-", "--json", "--srt", str(file), url=url, stdin=sound)
        assert done.exit_code == 0, done.stderr
        cues = list(srt.parse(file.read_text()))
        assert [json.loads(line)["text"] for line in done.stdout.splitlines()] == [cue.content for cue in cues]
        return cues

    expected = captions_by(server.url)
    cuts = Cuts(server.url, expected[0].content.encode(), DELTA.encode())  # after a final, and in an utterance
    found = captions_by(cuts.url)
    assert not cuts._marks
    assert [cue.content for cue in found] == [cue.content for cue in expected]
    for one, other in zip(found, expected, strict=True):
        assert abs((one.start - other.start).total_seconds()) < 0.2
        assert abs((one.end - other.end).total_seconds()) < 0.2


class Fake:
    """A server that ends sessions, or refuses them.

    refusals: statuses of the next handshakes. sessions: how many it takes; then it is away.
    """

    def __init__(self) -> None:
        self.sessions = 1
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
            self.sessions -= 1
            return None if self.sessions >= 0 else connection.respond(HTTPStatus.SERVICE_UNAVAILABLE, "")
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
    done = live("-", "--srt", str(file), "--give-up", "1.5", url=fake.url, stdin=bytes(16_000))
    assert (done.exit_code, done.stdout) == (3, "So far.\n")
    assert "the server is about to end; it goes on when the server is back" in done.stderr
    assert "status 503" in done.stderr
    assert file.read_text() == "1\n00:00:00,100 --> 00:00:00,900\nSo far.\n\n"


def test_a_refused_key_ends_it_and_a_busy_server_is_asked_again_when_it_says(fake: Fake) -> None:
    fake.refusals = [(401, {})]
    done = live("-", url=fake.url)
    assert done.exit_code == 3
    assert "status 401: not now" in done.stderr
    fake.refusals = [(429, {"retry-after": "1"})]
    begin = time.monotonic()
    assert live("-", "--give-up", "1.5", url=fake.url, stdin=bytes(16_000)).stdout == "So far.\n"
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


def test_an_utterance_that_broke_off_comes_again_on_a_line_of_its_own() -> None:
    captions, printed = Captions(), []
    for one in (
        event("input_audio_buffer.speech_started", "a", audio_start_ms=0),
        event("input_audio_buffer.speech_stopped", "a", audio_end_ms=900),
        event(COMPLETED, "a", transcript="If the food"),
        event("input_audio_buffer.speech_started", "b", audio_start_ms=1000),
        event(DELTA, "b", delta="Who"),
        None,
        event("input_audio_buffer.speech_started", "c", audio_start_ms=100),
        event(DELTA, "c", delta="Who came"),
        event("input_audio_buffer.speech_stopped", "c", audio_end_ms=800),
        event(COMPLETED, "c", transcript="Who came?"),
    ):
        if one:
            captions.receive(one)
        else:
            assert captions.settled_seconds == 0.9
            captions.restart(0.9)
        printed.append("".join(captions.new_text()))
    assert printed == ["", "", "If the food\n", "", "Who", "\n", "", "Who came", "", "?\n"]
    cues = [
        (cue.start.total_seconds(), cue.end.total_seconds(), cue.content) for cue in srt.parse(render_srt(captions))
    ]
    assert cues == [(0.0, 0.9, "If the food"), (1.0, 1.7, "Who came?")]
