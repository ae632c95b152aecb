"""What callers may not do to the service: each costs the caller an answer or the connection, and nobody else time."""

from __future__ import annotations

import asyncio
import json
import resource
import select
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from parakeet_stt.server.connections.http import RESERVED_DESCRIPTORS
from parakeet_stt.server.files import routes
from parakeet_stt.server.http.bodies import FILE_PATHS
from service import ParakeetSTT
from tests import contract
from tests.conftest import Sample, Serve
from tests.media import tones
from tests.media.readers import eventually
from tests.sockets import END, every, frames, opened, pcm

DRAIN, STANDSTILL = 10, 6  # seconds; the finals of a fast client need a few after its last message
PROMPT_SECONDS = 2.0  # for /livez beside a hostile caller; without a limit it took 5 to 33
UPGRADE = (
    b"Host: localhost\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: aaaaaaaaaaaaaaaaaaaaaA==\r\n"
    b"Sec-WebSocket-Version: 13\r\n\r\n"
)
CLOSED = (ConnectionError, BrokenPipeError)


@pytest.fixture(scope="module")
def serve(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    running = Serve(
        tmp_path_factory.mktemp("hostile") / "log",
        target="tests.services.hostile_service:ParakeetSTT",
        STT_DRAIN_SECONDS=str(DRAIN),
        STT_REQUEST_TIMEOUT_SECONDS=str(STANDSTILL),
    )
    with running:
        yield running


@contextmanager
def others_are_served(serve: Serve) -> Iterator[None]:
    """While the context lasts, others get their answers promptly."""
    over, longest = threading.Event(), [0.0]

    def ask() -> None:
        with httpx.Client(base_url=serve.server.url, timeout=60) as client:
            while not over.is_set():
                began = time.monotonic()
                assert client.get("/livez").status_code == 200
                longest[0] = max(longest[0], time.monotonic() - began)
                time.sleep(0.01)

    with ThreadPoolExecutor(1) as pool:
        asking = pool.submit(ask)
        try:
            yield
        finally:
            over.set()
            asking.result()
    assert longest[0] < PROMPT_SECONDS


def dialled(serve: Serve) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", serve.port))
    connection.settimeout(20)
    return connection


def all_of(connection: socket.socket) -> bytes:
    """Everything until the server closes; what came before a reset, if it resets."""
    received = bytearray()
    with suppress(*CLOSED):
        while data := connection.recv(1 << 16):
            received += data
    return bytes(received)


def form(*parts: tuple[str, str], kind: str = "multipart/form-data; boundary=x") -> dict[str, Any]:
    """A request with a form of text alone."""
    lines = [f'--x\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n{text}\r\n' for name, text in parts]
    return {"content": "".join([*lines, "--x--\r\n"]).encode(), "headers": {"content-type": kind}}


def test_an_address_in_place_of_a_file_is_never_asked(serve: Serve) -> None:
    asked: list[str] = []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.end_headers()

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as victim:
        threading.Thread(target=victim.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{victim.server_port}/secret"
        json_body = {"json": {"audio": address}}
        urlencoded = {"data": {"audio": address}}

        def ask(path: str, request: dict[str, Any]) -> httpx.Response:
            return httpx.post(f"{serve.server.url}{path}", timeout=60, **request)

        paths = ["/bentoml/transcribe"] * 30 + ["/bentoml/transcribe%0A"] * 10
        requests = [form(("audio", address)), form(("audio", f'"{address}"')), json_body, urlencoded]
        with ThreadPoolExecutor(20) as pool:
            answers = list(pool.map(ask, paths, requests * 10))
        victim.shutdown()
    for answer in answers:
        assert answer.status_code == 400
        contract.check(answer.json(), contract.ERROR)
        assert answer.json()["error"]["param"] in ("audio", "content-type")
    assert asked == []


def test_bentoml_keeps_a_refused_request_for_seconds_only() -> None:
    assert ParakeetSTT.config["traffic"]["timeout"] <= 5  # type: ignore[attr-defined]  # 4.7 KB each: 900 s of them were 1.15 GB


HEADS = {
    "one long header": (b"X-A: ", b"a" * (1 << 20), 8),
    "many headers": (b"", b"X-A: a\r\n" * 1000, 8),
    "101 headers": (b"", b"X-A: a\r\n" * 101 + b"\r\n", 1),
    "headers in one packet": (b"", b"X-A: " + b"a" * (70 << 10) + b"\r\n\r\n", 1),
}


@pytest.mark.parametrize("name", HEADS)
def test_a_head_that_is_too_large_is_refused_before_it_is_parsed(serve: Serve, name: str) -> None:
    first, piece, count = HEADS[name]
    with others_are_served(serve), dialled(serve) as connection:
        with suppress(*CLOSED):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n" + first)
            for _ in range(count):
                connection.sendall(piece)
        received = all_of(connection)
    assert not received or received.startswith(b"HTTP/1.1 431 ")  # nothing, where the reset overtook it
    if name == "101 headers":
        contract.check(json.loads(received.partition(b"\r\n\r\n")[2]), contract.ERROR)


def test_a_long_address_and_long_trailers_are_refused(serve: Serve) -> None:
    with dialled(serve) as connection:
        connection.sendall(b"GET /" + b"a" * (70 << 10) + b" HTTP/1.1\r\nHost: localhost\r\n\r\n")
        assert all_of(connection).startswith(b"HTTP/1.1 431 ")
    with others_are_served(serve), dialled(serve) as connection:
        with suppress(*CLOSED):
            connection.sendall(b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n")
            connection.sendall(b"1\r\na\r\n0\r\nX-A: ")
            for _ in range(8):
                connection.sendall(b"a" * (1 << 20))
        assert b"200 OK" not in all_of(connection)


def test_requests_that_wait_on_one_connection_are_bounded(serve: Serve) -> None:
    with others_are_served(serve), dialled(serve) as connection:
        with suppress(*CLOSED):
            connection.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n" * 20_000)
        received = all_of(connection)
    assert received.count(b"HTTP/1.1 200 ") < 100  # then it was closed


def test_a_head_that_does_not_come_is_given_up(serve: Serve) -> None:
    with dialled(serve) as silent, dialled(serve) as dripping, dialled(serve) as between:
        between.sendall(b"GET /healthz HTTP/1.1\r\nHost: localhost\r\n\r\n")
        between.recv(1 << 16)
        between.sendall(b"\r\n")
        dripping.sendall(b"GET /healthz HTTP/1.1\r\nHost: loc")
        began = time.monotonic()
        assert all_of(silent) == b""
        assert all_of(dripping).startswith(b"HTTP/1.1 408 ")
        all_of(between)
        assert time.monotonic() - began < 10


def test_an_upload_that_drips_is_given_up(serve: Serve) -> None:
    with dialled(serve) as connection:
        connection.sendall(b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                           b"Content-Type: multipart/form-data; boundary=x\r\n\r\n"
                           b'--x\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n')  # fmt: skip
        began = time.monotonic()
        with suppress(*CLOSED):
            while time.monotonic() - began < 2 * STANDSTILL and not select.select([connection], [], [], 0.5)[0]:
                connection.sendall(b"-")
        assert time.monotonic() - began < 2 * STANDSTILL  # while it still drips
        assert all_of(connection).startswith(b"HTTP/1.1 408 ")


def test_an_upgrade_by_another_method_is_answered(serve: Serve) -> None:
    with dialled(serve) as connection:
        connection.sendall(b"POST /ws HTTP/1.1\r\n" + UPGRADE)
        assert connection.recv(100).startswith(b"HTTP/1.1 404 ")  # as any other request for this path


FORMS = {
    "punycode": (form(("model", "a" * 200_000), kind="multipart/form-data; boundary=x; charset=punycode"), 400),
    "undefined": (form(("model", "a"), kind="multipart/form-data; boundary=x; charset=undefined"), 400),
    "much text": (form(*[("prompt", "a" * 500_000)] * 3), 413),
    "much urlencoded text": ({"data": {str(number): "a" * 500_000 for number in range(3)}}, 413),
    "many fields": (form(*[("keywords", "a")] * 1001), 400),
    "many files": ({"files": [("file", b"a")] * 5}, 400),
    "a long name": (form(("a" * 5000, "a")), 400),
    "a long prompt": ({"data": {"model": "whisper-1", "prompt": "Ab " * 7000}, "files": {"file": b"a"}}, 400),
    "a deep number": ({"data": {"model": "whisper-1", "keywords": "[" * 100_000}, "files": {"file": b"a"}}, 400),
    "a huge number": ({"data": {"model": "whisper-1", "keywords": f"[{'9' * 5000}]"}, "files": {"file": b"a"}}, 400),
    "no multipart": ({"content": b"--y", "headers": {"content-type": "multipart/form-data; boundary=x"}}, 400),
}  # fmt: skip


@pytest.mark.parametrize("path", sorted(FILE_PATHS))
def test_odd_forms_are_refused_at_once(serve: Serve, path: str) -> None:
    with others_are_served(serve):
        for name, (request, status) in FORMS.items():
            if path == "/v1/audio/transcriptions" or "long prompt" not in name:
                answer = httpx.post(f"{serve.server.url}{path}", timeout=60, **request)
                assert answer.status_code == status, (name, answer.text[:200])
                contract.check(answer.json(), contract.ERROR)


def test_every_route_that_takes_a_file_and_no_other_takes_a_large_body(serve: Serve) -> None:
    assert {getattr(route, "path", "") for route in routes.router.routes} == FILE_PATHS
    for path in ("/v1/realtime/client_secrets", "/v1/realtime/transcription_sessions"):
        answer = httpx.post(f"{serve.server.url}{path}", content=b" " * (2 << 20), timeout=60)
        assert answer.status_code == 413

        def unannounced() -> Iterator[bytes]:
            yield from (b" " * (1 << 20) for _ in range(2))

        with suppress(httpx.TransportError):  # refused while it is sent
            answer = httpx.post(f"{serve.server.url}{path}", content=unannounced(), timeout=60)
            assert answer.status_code == 413


SESSIONS = {
    "half a character": b'{"language": "\\ud800"}',
    "half a character, deeper": b'{"audio": {"input": {"transcription": {"prompt": "\\udc00"}}}}',
    "half a character in a name": b'{"\\ud800": 1}',
    "deep": b'{"a": ' * 300 + b"1" + b"}" * 300,
    "very deep": b"[" * 100_000,
    "a huge number": b'{"a": ' + b"9" * 5000 + b"}",
    "no object": b"[]",
}


def test_odd_sessions_are_refused(serve: Serve) -> None:
    for name, body in SESSIONS.items():
        for path in ("client_secrets", "transcription_sessions"):
            asked = b'{"session": ' + body + b"}" if path == "client_secrets" else body
            answer = httpx.post(f"{serve.server.openai_url}/realtime/{path}", content=asked, timeout=60,
                                headers={"content-type": "application/json"})  # fmt: skip
            assert 400 <= answer.status_code < 500, (name, path, answer.text)
            contract.check(answer.json(), contract.ERROR)


@pytest.mark.parametrize("path", ["/ws", "/v1/realtime"])
def test_a_long_text_on_a_socket_is_refused_at_once(serve: Serve, path: str) -> None:
    update = {"type": "session.update", "session": {"audio": {"input": {"transcription": {"prompt": ""}}}}}
    for characters in (21_000, 15_000_000):
        text = "Ab " * (characters // 3)
        update["session"]["audio"]["input"]["transcription"]["prompt"] = text  # type: ignore[index]
        with others_are_served(serve), opened(serve.server, path=path) as live:
            live.send(json.dumps({"type": "hello", "prompt": text} if path == "/ws" else update))
            kinds = [json.loads(live.recv(timeout=20))["type"] for _ in range(1 if path == "/ws" else 2)]
        assert kinds[-1] == "error"


FLOODS = {
    "empty fragments": b"\x01\x80abcd" + b"\x00\x80abcd" * 200_000,
    "fragments of a byte": b"\x01\x80abcd" + b"\x00\x81abcda" * 200_000,
    "pings that nobody reads the answers of": (b"\x89\xfdabcd" + b"x" * 125) * 60_000,
}


@pytest.mark.parametrize("name", FLOODS)
def test_a_flood_on_a_socket_ends_it_and_delays_nobody(serve: Serve, name: str) -> None:
    with others_are_served(serve), dialled(serve) as connection:
        connection.sendall(b"GET /ws HTTP/1.1\r\n" + UPGRADE)
        assert b" 101 " in connection.recv(1 << 16)
        endless = FLOODS[name] * 50
        with pytest.raises(CLOSED):
            connection.sendall(endless)


def test_a_client_that_sends_faster_than_real_time_is_not_dropped(serve: Serve, samples: dict[str, Sample]) -> None:
    sample = samples["two-minutes"]
    sound = pcm(sample.audio().samples[: 60 * 16_000])

    async def send(live: ClientConnection) -> None:
        for frame in frames(sound, every(100)):
            await live.send(frame)
        await live.send(END)

    async def talk() -> str:
        address = f"{serve.server.url.replace('http', 'ws')}/ws"
        async with connect(address, proxy=None, compression=None, ping_interval=None) as live:
            sending = asyncio.create_task(send(live))
            finals = []
            with suppress(ConnectionClosed):
                while True:
                    message = json.loads(await live.recv())
                    finals += [message["text"]] if message["type"] == "final" else []
            await sending
        assert live.close_code == 1000
        return " ".join(finals)

    async def all_of_them() -> list[str]:
        return await asyncio.gather(*[talk() for _ in range(2)])

    first, second = asyncio.run(all_of_them())
    assert first == second
    assert len(first.split()) > 0.4 * len(sample.text.split())


def test_an_answer_that_nobody_reads_is_given_up(serve: Serve) -> None:
    with socket.socket() as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.settimeout(20)
        connection.connect(("127.0.0.1", serve.port))
        get = b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n"
        connection.sendall(get * 8)
        time.sleep(7)
        assert len(all_of(connection)) < 8 << 20


def test_a_name_of_somebody_elses_site_is_refused(serve: Serve) -> None:
    """A page of that site would call the service as if it were the site: DNS rebinding."""

    def ask(path: str, host: str) -> httpx.Response:
        return httpx.get(f"{serve.server.url}{path}", headers={"host": host}, timeout=20)

    for path in ("/", "/v1/models", "/status", "/metrics", "/unknown"):
        answer = ask(path, "evil.example.com:3000")
        assert answer.status_code == 403
        contract.check(answer.json(), contract.ERROR)
        assert "STT_ALLOWED_HOSTS" in answer.json()["error"]["message"]
        assert ask(path, "localhost:3000").status_code == (404 if path == "/unknown" else 200)
    assert ask("/readyz", "evil.example.com").status_code == 200
    with pytest.raises(InvalidStatus) as refused:
        opened(serve.server, additional_headers={"host": "evil.example.com"}, origin="http://evil.example.com")
    assert refused.value.response.status_code == 403


def children(serve: Serve, part: str) -> psutil.Process:
    """The oldest process of the service with this in its command."""
    found = [one for one in psutil.Process(serve.process.pid).children(recursive=True) if part in str(one.cmdline())]
    return min(found, key=lambda one: one.create_time())


def test_while_the_program_that_forks_decoders_is_stopped_the_service_is_not_ready(serve: Serve) -> None:
    def becomes(status: int) -> bool:
        return eventually(lambda: httpx.get(f"{serve.server.url}/readyz").status_code == status)

    assert becomes(200)
    program = children(serve, "processes.media")
    program.suspend()
    try:
        assert becomes(503)
        assert httpx.get(f"{serve.server.url}/livez").status_code == 200
    finally:
        program.resume()
    assert becomes(200)


def test_without_descriptors_a_new_connection_is_answered_and_logged_and_all_is_well_again(serve: Serve) -> None:
    front = children(serve, "_bentoml_impl.worker.service")
    before = resource.prlimit(front.pid, resource.RLIMIT_NOFILE)
    most = max(one.fd for one in front.open_files()) if front.open_files() else 0
    most = max(most, front.num_fds()) + RESERVED_DESCRIPTORS
    resource.prlimit(front.pid, resource.RLIMIT_NOFILE, (most + 20, before[1]))
    idle: list[socket.socket] = []
    try:
        idle = [dialled(serve) for _ in range(40)]
        answer = httpx.get(f"{serve.server.url}/v1/models", timeout=20)
        assert answer.status_code == 503
        contract.check(answer.json(), contract.ERROR)
        assert int(answer.headers["retry-after"]) > 0
        assert "out of descriptors" in serve.server.log.read_text()
        more = [dialled(serve) for _ in range(200)]  # more than the process can have
        assert eventually(
            lambda: httpx_status(f"{serve.server.url}/v1/models") == 200
        )  # those that say nothing are closed
        idle += more
    finally:
        for connection in idle:
            connection.close()
        resource.prlimit(front.pid, resource.RLIMIT_NOFILE, before)
    assert eventually(lambda: httpx_status(f"{serve.server.url}/v1/models") == 200)


def httpx_status(url: str) -> int:
    """The status of an answer; 0 where the connection is closed instead."""
    try:
        return httpx.get(url, timeout=20).status_code
    except httpx.TransportError:
        return 0


def test_the_end_waits_neither_for_stalled_uploads_nor_for_clients_that_never_read(
    serve: Serve, samples: dict[str, Sample]
) -> None:
    url, good = f"{serve.server.openai_url}/audio/transcriptions", samples["two-sentences"]
    # Two hours: two of them are more than a fast processor does while the service ends. At 8 kHz, for the bytes.
    hours = tones.wav(tones.pcm(np.tile(samples["two-minutes"].audio().samples[::2], 60)), rate=8_000)

    def upload_hours() -> httpx.Response:
        with httpx.Client(timeout=60) as own:
            return own.post(url, data={"model": "whisper-1"}, files={"file": hours})

    def stream_hours() -> str:
        told = ""
        fields = {"model": "gpt-4o-transcribe", "stream": "true"}
        with suppress(httpx.RemoteProtocolError), httpx.stream(
            "POST", url, timeout=60, data=fields, files={"file": hours}
        ) as answer:  # fmt: skip
            for text in answer.iter_text():
                told += text
            return f"complete: {told[-200:]}"
        return told

    def upload() -> str:
        files = {"file": good.path.read_bytes()}
        answer = client.post(url, data={"model": "whisper-1"}, files=files)
        return str(answer.json().get("text", answer.text))

    stalled, never_read = [dialled(serve) for _ in range(10)], [socket.socket() for _ in range(10)]
    for connection in stalled:
        connection.sendall(b"POST /transcribe HTTP/1.1\r\nHost: localhost\r\nContent-Length: 1000\r\n"
                           b"Content-Type: multipart/form-data; boundary=x\r\n\r\n--x")  # fmt: skip
    for connection in never_read:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        connection.connect(("127.0.0.1", serve.port))
        connection.sendall(b"GET /docs/swagger-ui-bundle.js HTTP/1.1\r\nHost: localhost\r\n\r\n" * 8)
    with ThreadPoolExecutor(12) as pool, httpx.Client(timeout=60) as client:
        client.get(f"{serve.server.url}/livez")
        streamed, long = pool.submit(stream_hours), pool.submit(upload_hours)
        while "audio_seconds_total" not in client.get(f"{serve.server.url}/metrics").text or not streamed.running():
            time.sleep(0.1)
        time.sleep(2)
        uploads = [pool.submit(upload) for _ in range(10)]
        wait(uploads, return_when=FIRST_COMPLETED)
        time.sleep(0.5)  # then the others are in
        serve.process.send_signal(signal.SIGTERM)
        began = time.monotonic()
        assert {one.result() for one in uploads} == {good.text}
        try:
            serve.process.wait(DRAIN + 5)
        finally:
            serve.process.terminate()  # a second signal, or the long requests are waited for
        assert time.monotonic() - began < DRAIN + 5
        assert long.result().status_code == 503
        contract.check(long.result().json(), contract.ERROR)
        assert int(long.result().headers["retry-after"]) > 0
        assert "transcript.text.delta" in streamed.result()
        assert "transcript.text.done" not in streamed.result()
        assert not streamed.result().startswith("complete")
    for connection in (*stalled, *never_read):
        connection.close()
