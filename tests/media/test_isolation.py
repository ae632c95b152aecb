"""A real server and files that harm it, or try to: each costs its own request an answer, and nobody else anything."""

from __future__ import annotations

import itertools
import os
import random
import signal
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import pytest

from parakeet_stt.server.files.bento import NATIVE_PATH
from tests.conftest import Sample, Serve, Server, encode
from tests.media.readers import eventually, has_ended
from tests.services.trapped_decoder import TRAPS, trap

PATIENCE = 60.0  # seconds for one answer; a loaded machine
FRONT, DEVICE = "_bentoml_impl.worker.service", "tests.services.preloaded"
STANDSTILL = 15  # seconds without progress that a request may take here; 18 traps need 6 of them on a loaded machine


@pytest.fixture(scope="module")
def trapped(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Serve]:
    folder = tmp_path_factory.mktemp("trapped")
    (folder / "tmp").mkdir()
    running = Serve(folder / "log", target="tests.services.trapped_service:ParakeetSTT", TMPDIR=str(folder / "tmp"),
                    STT_REQUEST_TIMEOUT_SECONDS=str(STANDSTILL))  # fmt: skip
    with running:
        yield running


def post(server: Server, data: bytes, name: str = "a.wav", **fields: str) -> httpx.Response:
    return httpx.post(
        f"{server.openai_url}/audio/transcriptions",
        files={"file": (name, data)},
        data={"model": "whisper-1", **fields},
        timeout=PATIENCE,
    )


def children(server: Server, part: str) -> list[psutil.Process]:
    """The processes of the service with this in their command, oldest first."""
    found = []
    for one in psutil.Process(server.process).children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if one.status() != psutil.STATUS_ZOMBIE and part in " ".join(one.cmdline()):
                found.append(one)
    return sorted(found, key=lambda one: one.create_time())


def media_processes(server: Server) -> list[psutil.Process]:
    """The program that forks media workers, and the workers."""
    return children(server, "trapped_decoder")


def lasting_processes(server: Server) -> set[int]:
    """The numbers of the processes that a file must not end: parent, front, device process, media program."""
    found = {server.process, *(one.pid for part in (FRONT, DEVICE) for one in children(server, part))}
    found.add(children(server, "media.sock")[0].pid)
    assert len(found) == 4
    return found


def test_a_trap_costs_one_request_a_400_and_nobody_else_notices(trapped: Serve, samples: dict[str, Sample]) -> None:
    server, sample = trapped.server, samples["short"]
    good = sample.path.read_bytes()
    over = threading.Event()
    texts: list[str] = []
    delays: list[float] = []

    def others() -> None:
        while not over.is_set():
            began = time.monotonic()
            texts.append(post(server, good).json()["text"])
            delays.append(time.monotonic() - began)

    running, failures = lasting_processes(server), server.counter("stt_decoder_failures_total")
    with ThreadPoolExecutor(32) as pool:
        waiting = [pool.submit(others) for _ in range(2)]
        answers = list(pool.map(lambda name: post(server, trap(name)), [*TRAPS, *TRAPS, *TRAPS]))
        over.set()
        [one.result() for one in waiting]
    for answer in answers:
        assert answer.status_code == 400
        assert answer.json()["error"]["param"] == "file"
        assert answer.json()["error"]["code"] == "invalid_audio"
    assert set(texts) == {sample.text}
    assert max(delays) < PATIENCE / 2
    assert lasting_processes(server) == running
    assert server.counter("stt_decoder_failures_total") == failures + len(answers)
    assert post(server, good).json()["text"] == sample.text


def leave_soon(server: Server, data: bytes, path: str = "/v1/audio/transcriptions", **fields: str) -> None:
    """Ask, and go away 0.4 s after the upload, or after the first of what is streamed."""
    until: float | None = None
    with suppress(httpx.ReadTimeout), httpx.stream(
        "POST",
        f"{server.url}{path}",
        files={"audio" if path == NATIVE_PATH else "file": ("a.flac", data)},
        data={} if path == NATIVE_PATH else {"model": "whisper-1", **fields},
        timeout=httpx.Timeout(PATIENCE, read=0.4),
    ) as answer:  # fmt: skip
        for _ in answer.iter_raw():
            until = until or time.monotonic() + 0.4
            if time.monotonic() > until:
                return
        raise AssertionError("all of it came before anybody could leave")


def test_who_leaves_frees_everything_at_once(trapped: Serve, samples: dict[str, Sample]) -> None:
    server = trapped.server
    post(server, samples["short"].path.read_bytes())
    before = len(media_processes(server))
    long_one = encode(
        np.tile(samples["two-minutes"].audio().samples, 12), container="flac", codec="flac", rate=16_000
    )  # fmt: skip
    ways: list[tuple[bytes, dict[str, str]]] = [
        (trap("sleep"), {}), (trap("sleep"), {"path": NATIVE_PATH}),
        (long_one, {}), (long_one, {"stream": "true"}), (long_one, {"path": NATIVE_PATH}),
    ]  # fmt: skip
    for data, fields in ways:
        leave_soon(server, data, **fields)
        left = looked = time.monotonic()

        def is_free() -> bool:
            nonlocal looked
            looked = time.monotonic()
            one_may_be_new_and_idle = len(media_processes(server)) <= before
            return one_may_be_new_and_idle and server.counter("stt_queue_audio_seconds") == 0

        assert eventually(is_free)
        assert looked - left < 4  # a second, and what asking takes beside another test; `STANDSTILL` else


def test_an_upload_that_stops_on_its_way_is_answered(trapped: Serve) -> None:
    with socket.create_connection(("127.0.0.1", trapped.port), timeout=PATIENCE) as connection:
        connection.sendall(
            b"POST /v1/audio/transcriptions HTTP/1.1\r\nhost: here\r\ncontent-length: 100000\r\n"
            b"content-type: multipart/form-data; boundary=x\r\n\r\n--x\r\n"
        )
        began = time.monotonic()
        answer = connection.recv(1 << 16)
        while b"upload_stalled" not in answer and (more := connection.recv(1 << 16)):
            answer += more
        assert STANDSTILL - 1 < time.monotonic() - began < PATIENCE / 2
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b'"code":"upload_stalled"' in answer


def test_media_workers_get_no_settings(trapped: Serve, samples: dict[str, Sample]) -> None:
    """A process that reads untrusted files gets no keys."""
    server = trapped.server
    post(server, samples["short"].path.read_bytes())
    found = media_processes(server)
    assert len(found) > 1
    for one in found:
        environment = one.environ()
        assert not [name for name in environment if name.startswith("STT_")]
        assert environment["OPENBLAS_NUM_THREADS"] == "1"
    (front,) = children(server, FRONT)
    assert {"STT_SIGNING_KEY", "STT_REQUEST_TIMEOUT_SECONDS"} <= front.environ().keys()


def test_a_media_program_that_was_killed_is_started_again(trapped: Serve, samples: dict[str, Sample]) -> None:
    server = trapped.server
    post(server, samples["short"].path.read_bytes())
    program, *workers = media_processes(server)
    for one in (program, *workers):
        one.kill()
    assert post(server, samples["short"].path.read_bytes()).json()["text"] == samples["short"].text
    assert media_processes(server)[0] != program


def test_no_temporary_file_is_left_by_requests_nor_by_a_front_that_was_killed(
    trapped: Serve, samples: dict[str, Sample]
) -> None:
    server = trapped.server
    (run_folder,) = Path(trapped.environment["TMPDIR"]).glob("parakeet-stt-*")

    def files() -> set[Path]:
        """All but those of the service itself, which has as many whatever the requests are."""
        kept = [run_folder / name for name in ("metrics", "filters", "numba")]
        found = {path for path in run_folder.glob("*/**/*") if path.is_file()}
        return {path for path in found if not any(path.is_relative_to(folder) for folder in kept)}

    post(server, samples["short"].path.read_bytes())
    assert [path.name for path in files()] == ["lock"]
    old = files()
    (front,) = children(server, FRONT)
    program = media_processes(server)[0]
    others = lasting_processes(server) - {front.pid}
    big = trap("sleep") + bytes(3 << 20)
    with ThreadPoolExecutor(8) as pool:
        asked = [pool.submit(post, server, big) for _ in range(3)]
        native = pool.submit(
            httpx.post, f"{server.url}/bentoml/transcribe", files={"audio": ("a.wav", big)}, timeout=PATIENCE
        )
        assert eventually(lambda: sum(one.status == "ESTABLISHED" for one in front.net_connections("tcp")) == 4)
        assert eventually(lambda: len(media_processes(server)) > 1)
        workers = [one.pid for one in program.children()]
        os.kill(front.pid, signal.SIGKILL)
        assert all(isinstance(one.exception(), httpx.TransportError) for one in (*asked, native))
    assert eventually(lambda: all(map(has_ended, workers)))
    assert trapped.becomes_healthy()  # BentoML has started another
    (another,) = children(server, FRONT)
    assert another != front
    assert lasting_processes(server) == {*others, another.pid}
    assert [path.name for path in files()] == ["lock"]
    assert files() != old
    assert post(server, samples["short"].path.read_bytes()).json()["text"] == samples["short"].text


SOURCES = (
    ("wav", "pcm_s16le", 16_000), ("wav", "pcm_f32le", 48_000), ("flac", "flac", 16_000), ("mp3", "libmp3lame", 44_100),
    ("ipod", "aac", 44_100), ("ogg", "libopus", 48_000), ("webm", "libopus", 48_000), ("mpegts", "aac", 48_000),
    ("aiff", "pcm_s16be", 44_100), ("adts", "aac", 16_000),
)  # fmt: skip


def damaged(data: bytes, kind: int, pick: random.Random) -> bytes:
    """Bytes flipped; or the end, the beginning, or a part in between cut off; or another number in the header."""
    broken = bytearray(data)
    if kind == 0:
        for _ in range(pick.choice((1, 10, 200))):
            broken[pick.randrange(len(broken))] ^= 1 << pick.randrange(8)
    elif kind == 1:
        del broken[pick.randrange(len(broken)) :]
    elif kind == 2:
        start = pick.randrange(len(broken))
        del broken[start : start + pick.randrange(1, 2000)]
    else:
        at = pick.randrange(min(200, len(broken) - 4))
        broken[at : at + 4] = pick.choice((b"\xff\xff\xff\xff", b"\0\0\0\0", b"\x7f\xff\xff\xff", pick.randbytes(4)))
    return bytes(broken)


def test_damaged_files_are_each_heard_or_refused(server: Server, samples: dict[str, Sample]) -> None:
    """Eighty of them; `scripts.release.check_hostile` sends thousands."""
    sound = samples["short"].audio().samples
    running = lasting_processes(server)
    pick = random.Random(7)
    whole = [encode(sound, container=container, codec=codec, rate=rate) for container, codec, rate in SOURCES]
    files = [damaged(data, kind, pick) for data, kind in itertools.product(whole, range(4)) for _ in range(2)]
    assert len(files) == 80
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda data: post(server, data), files))
    assert {answer.status_code for answer in answers} == {200, 400}
    transcribed = sum(answer.status_code == 200 for answer in answers)
    assert 20 < transcribed < 80
    assert lasting_processes(server) == running


def test_a_file_that_is_cut_off_is_heard_as_far_as_it_goes_and_says_so(
    server: Server, samples: dict[str, Sample]
) -> None:
    sample = samples["two-sentences"]
    data = encode(sample.audio().samples, container="mp3", codec="libmp3lame", rate=44_100)
    whole, cut = post(server, data), post(server, data[: len(data) // 2])
    assert "x-audio-truncated" not in whole.headers
    assert cut.headers["x-audio-truncated"] == "true"
    words = cut.json()["text"].split()
    assert sample.text.split()[: len(words) - 1] == words[:-1]
    for form in ("text", "srt", "verbose_json"):
        answer = post(server, data[: len(data) // 2], response_format=form)
        assert answer.headers["x-audio-truncated"] == "true"
