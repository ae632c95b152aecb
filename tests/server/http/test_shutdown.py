"""Shutdown: open requests and sessions are served to their end, and new ones are refused."""

from __future__ import annotations

import json
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Sample, Serve
from tests.sockets import answers, every, frames, opened, pcm

UPLOADS, SOCKETS = 20, 10


def test_every_upload_is_answered_and_every_socket_gets_its_final(tmp_path: Path, samples: dict[str, Sample]) -> None:
    clip, spoken = samples["two-minutes"], samples["short"]
    said = pcm(spoken.audio().samples)[: int(spoken.words[-1]["end"] * 32_000) + 1600]  # no pause after it
    serve = Serve(tmp_path / "log", STT_DRAIN_SECONDS="120")
    with serve as server, ThreadPoolExecutor(UPLOADS) as pool:
        sockets = [opened(server) for _ in range(SOCKETS)]
        for socket in sockets:
            for frame in frames(said, every(100)):
                socket.send(frame)

        def upload() -> httpx.Response:
            files = {"file": clip.path.read_bytes()}
            url = f"{server.openai_url}/audio/transcriptions"
            return httpx.post(url, data={"model": "whisper-1"}, files=files, timeout=120)

        uploads = [pool.submit(upload) for _ in range(UPLOADS)]
        while server.counter("stt_queue_audio_seconds") < 60:  # all are in, and most of them wait
            time.sleep(0.05)
        time.sleep(1)
        serve.process.send_signal(signal.SIGTERM)
        signalled = time.monotonic()
        time.sleep(0.2)
        refused = httpx.get(f"{server.openai_url}/models", timeout=10)
        assert refused.status_code == 503
        assert int(refused.headers["retry-after"]) > 0
        assert httpx.get(f"{server.url}/readyz", timeout=10).status_code == 503
        with pytest.raises(InvalidStatus) as socket_refused:
            opened(server)
        assert socket_refused.value.response.status_code == 503
        for socket in sockets:
            messages_received = answers(socket)
            assert [message["text"] for message in messages_received if message.get("type") == "final"] == [spoken.text]
            assert socket.close_code == 1001
        replies = [one.result() for one in uploads]
        assert {reply.status_code for reply in replies} == {200}
        assert len({reply.json()["text"] for reply in replies}) == 1
        serve.process.wait(30)
        assert time.monotonic() - signalled < 90
    assert "Traceback" not in server.log.read_text()


def test_a_service_at_rest_ends_at_once(tmp_path: Path) -> None:
    serve = Serve(tmp_path / "log")
    with serve:
        serve.process.send_signal(signal.SIGINT)
        began = time.monotonic()
        serve.process.wait(30)
        assert time.monotonic() - began < 10


def test_a_socket_that_nobody_reads_does_not_hold_up_the_end(tmp_path: Path, samples: dict[str, Sample]) -> None:
    serve = Serve(tmp_path / "log", STT_DRAIN_SECONDS="1")
    with serve as server:
        socket = opened(server, path="/v1/realtime")
        socket.send(json.dumps({"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}))
        serve.process.send_signal(signal.SIGTERM)
        serve.process.wait(30)
