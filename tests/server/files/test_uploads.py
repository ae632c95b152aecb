"""Uploads lie in memory files, or in a temporary folder once they are large; nothing of them stays open."""

from __future__ import annotations

import asyncio
import errno
import gc
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from fastapi import FastAPI, Request
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect
from starlette.testclient import TestClient

from parakeet_stt.errors import InvalidField
from parakeet_stt.server.files import uploads
from parakeet_stt.server.files.uploads import MemoryFile, open_form
from parakeet_stt.server.http import errors
from tests.media.readers import descriptors

BROKEN_FORMS = {
    "no boundary": ("multipart/form-data", b"--x\r\n"),
    "another boundary": ("multipart/form-data; boundary=x", b"--y\r\nhello"),
    "a part without a name": (
        "multipart/form-data; boundary=x",
        b'--x\r\ncontent-disposition: form-data; filename="a"\r\n\r\n1\r\n--x--\r\n',
    ),
    "a broken header after a file": (
        "multipart/form-data; boundary=x",
        b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n12\r\n'
        b"--x\r\nno header\r\n\r\n1\r\n--x--",
    ),
}


@pytest.fixture(autouse=True)
def _no_garbage() -> None:
    """What tests before have left would close its descriptors while they are counted."""
    gc.collect()


def where(file: Any) -> str:
    """The path of an open file, as the kernel has it."""
    return os.readlink(f"/proc/self/fd/{file.fileno()}")


def app() -> FastAPI:
    """Answers with what is in a form; refuses it where it has the field `refuse`."""
    served = FastAPI()
    errors.install(served)

    @served.post("/")
    async def describe(request: Request) -> list[tuple[str, str, str]]:
        async with open_form(request) as form:
            if "refuse" in form:
                raise InvalidField("refused", param="refuse")
            if "fail" in form:
                raise ZeroDivisionError
            described = []
            for name, value in form.multi_items():
                if isinstance(value, UploadFile):
                    content = (await value.read()).decode()
                    assert content == os.pread(value.file.fileno(), 1 << 20, 0).decode()
                    described.append((name, content, where(value.file)))
                else:
                    described.append((name, value, ""))
            return described

    return served


@pytest.fixture
def client() -> Iterator[TestClient]:
    with TestClient(app(), raise_server_exceptions=False) as running:
        running.post("/", data={"a": "1"})  # what is opened once, is open
        yield running


def test_a_small_file_lies_in_memory() -> None:
    with MemoryFile() as file:
        assert file.write(b"hello") == 5
        assert where(file).startswith("/memfd:")
        file.seek(0)
        assert file.read() == b"hello"


def test_a_file_that_grows_moves_to_a_temporary_folder_under_the_same_descriptor(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(uploads, "MEMORY_BYTES", 1000)
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    before = descriptors()
    with MemoryFile() as file:
        number = file.fileno()
        pieces = [bytes([number]) * 300 for number in range(10)]
        for count, piece in enumerate(pieces, start=1):
            assert file.write(piece) == 300
            assert where(file).startswith("/memfd:" if count <= 3 else str(tmp_path))
        assert file.fileno() == number
        assert descriptors() == before + 1
        assert os.pread(number, 1 << 20, 0) == b"".join(pieces)
        assert file.tell() == 3000
        assert os.get_inheritable(number) is False
    assert descriptors() == before
    assert list(tmp_path.iterdir()) == []


def test_a_file_as_large_as_allowed_stays_in_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MEMORY_BYTES", 1000)
    with MemoryFile() as file:
        file.write(bytes(1000))
        assert where(file).startswith("/memfd:")


def test_a_form_has_all_its_files_and_fields(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uploads, "MEMORY_BYTES", 100_000)
    large, small = "abcdefghij" * 30_000, "12345"
    files = [("file", ("a.wav", large)), ("file", ("b.wav", small)), ("empty", ("c.wav", ""))]
    before = descriptors()
    answer = client.post("/", data={"model": "whisper-1", "language": "én"}, files=files)
    assert answer.status_code == 200
    described = [tuple(one) for one in answer.json()]
    assert [(name, content) for name, content, _ in described] == [
        ("model", "whisper-1"), ("language", "én"), ("file", large), ("file", small), ("empty", ""),
    ]  # fmt: skip
    paths = [path for _, _, path in described if path]
    assert [path.startswith("/memfd:") for path in paths] == [False, True, True]
    assert descriptors() == before


def test_a_full_temporary_folder_is_507_and_leaves_nothing_open(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(uploads, "MEMORY_BYTES", 1000)
    monkeypatch.setattr(tempfile, "TemporaryFile", lambda: open("/dev/full", "r+b", buffering=0))  # noqa: SIM115
    before = descriptors()
    answer = client.post("/", files={"file": ("a.wav", bytes(2000))})
    assert answer.status_code == 507
    assert answer.json()["error"]["code"] == "insufficient_storage"
    assert descriptors() == before


def test_without_descriptors_the_answer_is_503(client: TestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> int:
        raise OSError(errno.EMFILE, "Too many open files")

    monkeypatch.setattr(uploads, "create_memory_file", fail)
    answer = client.post("/", files={"file": ("a.wav", b"1")})
    assert answer.status_code == 503
    assert answer.headers["retry-after"]


def test_a_form_of_another_kind_has_fields_too(client: TestClient) -> None:
    assert client.post("/", data={"model": "whisper-1"}).json() == [["model", "whisper-1", ""]]


def test_a_body_of_json_is_told_what_is_expected(client: TestClient) -> None:
    answer = client.post("/", json={"model": "whisper-1"})
    assert answer.status_code == 400
    assert "multipart/form-data is expected, not application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("name", BROKEN_FORMS)
def test_a_broken_form_is_a_400_in_the_envelope_and_leaves_nothing_open(name: str, client: TestClient) -> None:
    kind, body = BROKEN_FORMS[name]
    before = descriptors()
    answer = client.post("/", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert answer.json()["error"]["type"] == "invalid_request_error"
    assert answer.json()["error"]["message"]
    assert descriptors() == before


@pytest.mark.parametrize(("field", "status"), [("refuse", 400), ("fail", 500)])
def test_files_are_closed_when_a_request_is_refused_or_fails(field: str, status: int, client: TestClient) -> None:
    before = descriptors()
    answer = client.post("/", data={field: "1"}, files=[("file", ("a.wav", b"12345"))] * 3)
    assert answer.status_code == status
    assert descriptors() == before


def test_files_are_closed_when_their_client_leaves_in_the_middle() -> None:
    part = b'--x\r\ncontent-disposition: form-data; name="file"; filename="a"\r\n\r\n' + bytes(100)
    messages = iter([{"type": "http.request", "body": part, "more_body": True}, {"type": "http.disconnect"}])
    opened: list[int] = []

    async def receive() -> Any:
        opened.append(descriptors())
        return next(messages)

    async def read() -> None:
        headers = [(b"content-type", b"multipart/form-data; boundary=x")]
        with pytest.raises(ClientDisconnect):
            async with open_form(Request({"type": "http", "method": "POST", "headers": headers}, receive)):
                raise AssertionError("the form was not whole")
        opened.append(descriptors())

    asyncio.run(read())
    assert opened == [opened[0], opened[0] + 1, opened[0]]
