"""The service is several processes that act as one: two fronts, a device process, media workers."""

from __future__ import annotations

import json
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import pytest
from websockets.exceptions import InvalidStatus
from websockets.sync.client import ClientConnection

from tests.conftest import PLAIN, Sample, Serve, Server
from tests.server.tree import DEVICE, FRONT, MEDIA, Caller, front_of, maps_of, one_of_each, processes, until
from tests.sockets import answers, every, frames, opened, pcm

KEY, MAX_SESSIONS = "the-key", 4
BEARER = {"authorization": f"Bearer {KEY}"}
TRANSCRIPTIONS = 'stt_requests_total{code="200",method="POST",route="/v1/audio/transcriptions"}'


@contextmanager
def temporary_folder() -> Iterator[Path]:
    """A temporary folder of the service's own, whose name is short enough for sockets in it."""
    made = Path(tempfile.mkdtemp(prefix="stt-"))
    yield made
    shutil.rmtree(made)


@pytest.fixture
def folder() -> Iterator[Path]:
    with temporary_folder() as made:
        yield made


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    """Two fronts, with a key, and a limit of sessions that is soon reached. The last test ends it."""
    limits: Any = {"STT_FRONTS": "2", "STT_API_KEYS": KEY, "STT_MAX_SESSIONS": str(MAX_SESSIONS)}
    with temporary_folder() as folder:
        serve = Serve(tmp_path_factory.mktemp("fronts") / "log", target=PLAIN, TMPDIR=str(folder), **limits)
        with serve:
            until(lambda: len(fronts(serve)) == 2, "two fronts")
            yield serve


@pytest.fixture
def callers(serve: Serve) -> Iterator[list[Caller]]:
    """A connection to each front."""
    made = one_of_each(serve, lambda: Caller(serve, **BEARER), lambda one: one.front)
    yield made
    for one in made:
        one.close()


def fronts(serve: Serve) -> list[int]:
    return [one.pid for one in processes(serve, FRONT)]


def upload(server: Server, sample: Sample) -> httpx.Response:
    return httpx.post(
        f"{server.openai_url}/audio/transcriptions", data={"model": "whisper-1"}, timeout=120, headers=BEARER,
        files={"file": sample.path.read_bytes()},
    )  # fmt: skip


def speak(server: Server, sample: Sample) -> list[str]:
    """Send all of it at once over a socket, which may have to wait for the service to read; the finals."""
    socket = opened(server, additional_headers=BEARER)
    for frame in frames(pcm(sample.audio().samples), every(100)):
        socket.send(frame)
    socket.send(json.dumps({"type": "end"}))
    return [message["text"] for message in answers(socket) if message["type"] == "final"]


def sockets_to_both(serve: Serve, connect: Callable[[], ClientConnection]) -> list[ClientConnection]:
    found: list[ClientConnection] = one_of_each(serve, connect, lambda one: front_of(serve, one.socket))
    return found


def connect_when_admitted(caller: Caller, connect: Callable[[], ClientConnection]) -> ClientConnection:
    """Connect once fewer sessions than may be are open: one that its client has closed ends a moment later."""
    until(lambda: caller.metrics()["stt_sessions"] < MAX_SESSIONS, "one more session may be opened")
    return connect()


def test_a_short_lived_key_of_one_front_opens_sessions_on_both(serve: Serve, callers: list[Caller]) -> None:
    for caller in callers:
        status, text = caller.ask("POST", "/v1/realtime/client_secrets", b"{}")
        assert status == 200
        made = {"authorization": f"Bearer {json.loads(text)['value']}"}
        connect = partial(opened, serve.server, path="/v1/realtime", additional_headers=made)
        sockets = sockets_to_both(serve, partial(connect_when_admitted, callers[0], connect))
        for one in sockets:
            assert json.loads(one.recv(timeout=20))["type"] == "session.created"
            one.close()
        until(lambda: callers[0].metrics()["stt_sessions"] == 0, "the sessions are over")
        forged = {"authorization": made["authorization"][:-2] + "xx"}
        with pytest.raises(InvalidStatus) as refusal:
            opened(serve.server, path="/v1/realtime", additional_headers=forged)
        assert refusal.value.response.status_code == 401


@pytest.mark.usefixtures("callers")  # both fronts are there
def test_connections_that_come_together_are_shared_out(serve: Serve) -> None:
    """One front took all 16, and a second one helped nobody."""
    with ExitStack() as stack:
        opened_at_once = [stack.enter_context(_connecting(serve.port)) for _ in range(16)]
        counts = Counter(front_of(serve, one) for one in opened_at_once)
        assert len(counts) == 2
        assert min(counts.values()) >= 5, counts


def _connecting(port: int) -> socket.socket:
    connection = socket.socket()
    connection.setblocking(False)
    connection.connect_ex(("127.0.0.1", port))
    return connection


def test_the_limit_of_sessions_holds_over_both_fronts_exactly(serve: Serve, callers: list[Caller]) -> None:
    connect = partial(connect_when_admitted, callers[0], partial(opened, serve.server, additional_headers=BEARER))

    def check_refused() -> None:
        with pytest.raises(InvalidStatus) as refusal:
            opened(serve.server, additional_headers=BEARER)
        assert refusal.value.response.status_code == 429
        assert int(refusal.value.response.headers["retry-after"]) > 0

    until(lambda: callers[0].metrics()["stt_sessions"] == 0, "no session of another test is open")
    before = callers[0].metrics()["stt_sessions_refused_total"]
    sockets: list[ClientConnection] = []
    while len({front_of(serve, one.socket) for one in sockets}) < 2:  # both fronts have some
        sockets.append(connect())
        if len(sockets) == MAX_SESSIONS and len({front_of(serve, one.socket) for one in sockets}) < 2:
            sockets.pop().close()
    while len(sockets) < MAX_SESSIONS:
        sockets.append(connect())
    until(lambda: callers[0].metrics()["stt_sessions"] == MAX_SESSIONS, "all are counted")
    for _ in range(20):
        check_refused()
    assert [one.metrics()["stt_sessions_refused_total"] - before for one in callers] == [20, 20]
    sockets.pop().close()
    until(lambda: callers[0].metrics()["stt_sessions"] == MAX_SESSIONS - 1, "one is over")
    sockets.append(opened(serve.server, additional_headers=BEARER))
    check_refused()
    for one in sockets:
        one.close()
    until(lambda: callers[1].metrics()["stt_sessions"] == 0, "all are over")


def test_metrics_are_the_same_whichever_front_answers_after_requests_to_both(
    serve: Serve, callers: list[Caller], samples: dict[str, Sample]
) -> None:
    body, kind = form(samples["short"])
    before = callers[0].metrics()
    for caller, count in zip(callers, (2, 3), strict=True):
        for _ in range(count):
            status, text = caller.ask("POST", "/v1/audio/transcriptions", body, kind)
            assert (status, json.loads(text)["text"]) == (200, samples["short"].text)

    def are_counted() -> bool:
        return all(one.metrics()[TRANSCRIPTIONS] - before.get(TRANSCRIPTIONS, 0) == 5 for one in callers)

    until(are_counted, "all five, a moment after the last answer", 10)
    for shown in [caller.metrics() for caller in callers]:
        heard = shown["stt_audio_seconds_total"] - before["stt_audio_seconds_total"]
        assert heard == pytest.approx(5 * samples["short"].seconds, abs=0.1)
        assert shown["stt_inference_seconds_count"] - before["stt_inference_seconds_count"] == 5  # the device's own
        assert shown["stt_queue_audio_seconds"] == 0
        assert shown["stt_detect_seconds_count"] == 0  # media workers detect
        assert shown["process_resident_memory_bytes"] > 5e8  # of all processes; the device's alone has more


def form(sample: Sample) -> tuple[bytes, str]:
    """An upload as multipart/form-data, and its media type."""
    request = httpx.Request(
        "POST", "http://x", data={"model": "whisper-1"}, files={"file": ("a.flac", sample.path.read_bytes())}
    )
    return request.read(), request.headers["content-type"]


def test_the_running_service_never_reached_for_another_machine(serve: Serve, samples: dict[str, Sample]) -> None:
    assert upload(serve.server, samples["short"]).status_code == 200
    assert serve.server.refused.read_text() == ""


def test_only_the_device_process_has_torch_in_its_memory(serve: Serve, samples: dict[str, Sample]) -> None:
    assert upload(serve.server, samples["short"]).status_code == 200
    until(lambda: len(processes(serve, MEDIA)) > 1, "the media program and a worker that it has forked")
    for part in (FRONT, MEDIA, ""):
        light = [one for one in processes(serve, part) if DEVICE not in " ".join(one.cmdline())]
        assert light
        for process in light:
            assert "libtorch" not in maps_of(process), process.cmdline()
    (device,) = processes(serve, DEVICE)
    assert "libtorch" in maps_of(device)


def test_while_the_device_process_is_away_the_service_is_not_ready_and_what_is_sent_is_answered_later(
    serve: Serve, callers: list[Caller], samples: dict[str, Sample]
) -> None:
    def ready() -> list[int]:
        return [caller.ask("GET", "/readyz")[0] for caller in callers]

    before = fronts(serve)
    assert ready() == [200, 200]
    restarts = callers[0].metrics()["stt_device_restarts_total"]
    (device,) = processes(serve, DEVICE)
    device.kill()
    began = time.monotonic()
    until(lambda: ready() == [503, 503], "neither front is ready", 5)
    with ThreadPoolExecutor(7) as pool:
        sent = [pool.submit(upload, serve.server, samples[name]) for name in ("short", "two-sentences") * 3]
        spoken = pool.submit(speak, serve.server, samples["short"])
        until(lambda: ready() == [200, 200], "both are ready again", 120)
        away = time.monotonic() - began
        replies = [one.result() for one in sent]
        said = spoken.result()
    assert [reply.status_code for reply in replies] == [200] * 6
    assert [reply.json()["text"] for reply in replies] == [
        samples[name].text for name in ("short", "two-sentences") * 3
    ]
    assert said == [samples["short"].text]
    assert away > 1, "it was never away"
    last = Caller(serve, **BEARER)  # the others may have been closed, since they were idle
    assert last.metrics()["stt_device_restarts_total"] == restarts + 1
    last.close()
    assert fronts(serve) == before
    assert not device.is_running()


def test_a_device_that_is_lost_is_started_again_and_the_caller_notices_only_a_delay(
    tmp_path: Path, samples: dict[str, Sample]
) -> None:
    lose = tmp_path / "lose"
    serve = Serve(tmp_path / "log", PRELOADED_ENGINE="tests.services.lossy_engine", LOSE_DEVICE=str(lose))
    with serve as server:
        before, (device,) = fronts(serve), processes(serve, "-m tests.services.preloaded")
        lose.touch()
        reply = upload(server, samples["two-sentences"])
        assert (reply.status_code, reply.json()["text"]) == (200, samples["two-sentences"].text)
        assert not lose.exists()
        assert fronts(serve) == before
        assert not device.is_running()
        caller = Caller(serve)
        assert caller.metrics()["stt_device_restarts_total"] == 1
        caller.close()


def test_sigterm_to_the_parent_lets_both_fronts_finish_and_leaves_no_process_and_no_folder(
    tmp_path: Path, folder: Path, samples: dict[str, Sample]
) -> None:
    spoken = samples["short"]
    said = pcm(spoken.audio().samples)[: int(spoken.words[-1]["end"] * 32_000) + 1600]  # no pause after it
    serve = Serve(tmp_path / "log", STT_FRONTS="2", TMPDIR=str(folder))
    with serve as server:
        until(lambda: len(fronts(serve)) == 2, "two fronts")
        sockets = sockets_to_both(serve, lambda: opened(server))
        for socket in sockets:
            for frame in frames(said, every(100)):
                socket.send(frame)
        time.sleep(1)
        running = processes(serve)
        assert len(running) >= 5  # the parent, two fronts, the device, the media program
        assert list(folder.iterdir())
        serve.process.send_signal(signal.SIGTERM)
        for socket in sockets:
            assert [one["text"] for one in answers(socket) if one["type"] == "final"] == [spoken.text]
            assert socket.close_code == 1001
        serve.process.wait(30)
        assert not left(running)
    assert list(folder.iterdir()) == []
    assert "Traceback" not in server.log.read_text()


def test_sigkill_of_the_parent_leaves_no_process_behind_and_the_next_start_removes_the_folder(
    serve: Serve, samples: dict[str, Sample]
) -> None:
    """The last in this file: it ends the service that all share."""
    folder = Path(serve.environment["TMPDIR"])
    assert upload(serve.server, samples["short"]).status_code == 200
    running = processes(serve)
    assert len(running) >= 5
    serve.process.kill()
    serve.process.wait(10)
    until(lambda: not left(running), "no process is left", 20)
    (old,) = folder.iterdir()
    script = "import sys, pathlib; from parakeet_stt.server import tempdir; tempdir.create(pathlib.Path(sys.argv[1]))"
    subprocess.run([sys.executable, "-c", script, str(folder)], check=True, timeout=60)
    assert not old.exists()


def left(processes_before: list[psutil.Process]) -> list[psutil.Process]:
    """Those that still run."""
    return [one for one in processes_before if one.is_running() and one.status() != psutil.STATUS_ZOMBIE]
