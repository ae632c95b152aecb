"""Shutdown: open requests and sessions are served to their end, and new ones are refused."""

from __future__ import annotations

import json
import signal
import socket
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from websockets.exceptions import InvalidStatus

from tests.conftest import Sample, Serve
from tests.sockets import answers, every, frames, opened, pcm

UPLOADS, SOCKETS = 10, 10
DRAIN, MORE = 2, 5  # seconds: the setting, and how much later the process has ended at the latest
STALLED = b"HTTP/1.1 503 Service Unavailable"


def test_every_upload_is_answered_and_every_socket_gets_its_final(tmp_path: Path, samples: dict[str, Sample]) -> None:
    clip, spoken = samples["two-minutes"], samples["short"]
    said = pcm(spoken.audio().samples)[: int(spoken.words[-1]["end"] * 32_000) + 1600]  # no pause after it
    serve = Serve(tmp_path / "log", STT_DRAIN_SECONDS="120")
    with serve as server, ThreadPoolExecutor(UPLOADS) as pool:
        sockets = [opened(server) for _ in range(SOCKETS)]
        for one in sockets:
            for frame in frames(said, every(100)):
                one.send(frame)

        def post() -> httpx.Response:
            files = {"file": clip.path.read_bytes()}
            url = f"{server.openai_url}/audio/transcriptions"
            return httpx.post(url, data={"model": "whisper-1"}, files=files, timeout=120)

        uploads = [pool.submit(post) for _ in range(UPLOADS)]
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
        for one in sockets:
            messages_received = answers(one)
            assert [message["text"] for message in messages_received if message.get("type") == "final"] == [spoken.text]
            assert one.close_code == 1001
        replies = [upload.result() for upload in uploads]
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


def test_stalled_uploads_and_a_socket_that_nobody_reads_do_not_hold_up_the_end(tmp_path: Path) -> None:
    """Without the drain these uploads would be waited for 600 s, the limit of a request."""
    serve = Serve(tmp_path / "log", STT_DRAIN_SECONDS=str(DRAIN))
    with serve as server, ExitStack() as closing:
        unread = opened(server, path="/v1/realtime")
        unread.send(json.dumps({"type": "session.update", "session": {"audio": {"input": {"turn_detection": None}}}}))
        stalled = [closing.enter_context(socket.create_connection(("127.0.0.1", serve.port))) for _ in range(10)]
        for connection in stalled:
            connection.settimeout(DRAIN + MORE)
            connection.sendall(
                b"POST /v1/audio/transcriptions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x"
            )
        time.sleep(0.5)  # then they are in
        serve.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert {connection.recv(100).split(b"\r\n")[0] for connection in stalled} == {STALLED}
        serve.process.wait(30)
        assert time.monotonic() - began < DRAIN + MORE
