"""`parakeet fetch`, run as the operator runs it, against a hub on loopback and a BentoML store of its own."""

from __future__ import annotations

import hashlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from parakeet_stt.cli import fetch
from parakeet_stt.engines.catalogue import CATALOGUE, DIARIZERS
from tests.conftest import ROOT

COMMAND = ["-m", "parakeet_stt", "fetch"]
NAME = "nvidia/parakeet-tdt-0.6b-v2"
ENTRY = CATALOGUE[NAME]
PUBLISHED = ENTRY.published
assert PUBLISHED
REVISION, PINNED_SHA256 = PUBLISHED.revision, PUBLISHED.sha256
SETTING = f"STT_MODEL={NAME}\n"
WEIGHTS = bytes(range(256)) * 100_000  # 26 MB: half of it is more than one of the 10 MiB pieces that are resumed after
SHA256 = hashlib.sha256(WEIGHTS).hexdigest()
# The true checksum belongs to gigabytes; this runs the command with that of `WEIGHTS` in the catalogue instead.
RUN_WITH_CHECKSUM = f"""
import dataclasses, sys
from parakeet_stt.cli.app import app
from parakeet_stt.engines import catalogue
entry = catalogue.CATALOGUE[{NAME!r}]
published = dataclasses.replace(entry.published, sha256={SHA256!r})
catalogue.CATALOGUE[{NAME!r}] = dataclasses.replace(entry, published=published)
app(["fetch", *sys.argv[1:]])
"""


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@dataclass
class Hub:
    """What huggingface_hub asks of a hub for one file of one commit: HEAD, and GET with or without a range.

    etag: None stands for a mirror that gives no checksum. breaks: how many answers end in the middle.
    stalls: the answer stops in the middle without ending. redirects: the file is elsewhere, as at the real hub, which
    offers Xet beside; `elsewhere` has the requests to other paths. refuses: a status, and the hub's reason.
    """

    content: bytes = WEIGHTS
    etag: str | None = None
    breaks: int = 0
    stalls: bool = False
    redirects: bool = False
    refuses: tuple[int, str] | None = None
    elsewhere: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    url: str = ""
    path: str = f"/{NAME}/resolve/{REVISION}/parakeet-tdt-0.6b-v2.nemo"


@pytest.fixture
def hub() -> Iterator[Hub]:
    hub = Hub()
    release = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self.answer(with_body=False)

        def do_GET(self) -> None:
            self.answer(with_body=True)

        def answer(self, *, with_body: bool) -> None:
            start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").removesuffix("-"))
            if self.path != hub.path and self.path != "/store/weights":
                hub.elsewhere.append(self.path)
                self.send_error(404)
                return
            if hub.refuses:
                self.send_response(hub.refuses[0])
                self.send_header("X-Error-Message", hub.refuses[1])
                self.send_header("Content-Length", "0")
                self.end_headers()
                return
            if hub.redirects and self.path == hub.path:
                self.send_response(302)
                self.send_header("Location", f"{hub.url.replace('127.0.0.1', 'localhost')}/store/weights")
                self.send_header("Content-Length", "0")
                self.send_header("X-Linked-Etag", f'"{hub.etag}"')
                self.send_header("X-Linked-Size", str(len(hub.content)))
                self.send_header("X-Repo-Commit", REVISION)
                self.send_header("X-Xet-Hash", "0" * 64)
                self.send_header("Link", f'<{hub.url}/xet-token>; rel="xet-auth"')
                self.end_headers()
                return
            hub.requests.append(f"{self.command} from {start}")
            body = hub.content[start:]
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Content-Range", f"bytes {start}-{len(hub.content) - 1}/{len(hub.content)}")
            self.send_header("ETag", f'"{hub.etag or "of-a-mirror"}"')
            self.send_header("X-Repo-Commit", REVISION)
            self.end_headers()
            if not with_body:
                return
            if hub.stalls:
                self.wfile.write(body[: len(body) // 2])
                release.wait()
            elif hub.breaks:
                hub.breaks -= 1
                self.wfile.write(body[: len(body) // 2])
            else:
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    hub.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    yield hub
    release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@dataclass(frozen=True)
class Machine:
    """Where one operator runs the command: a BentoML store and a folder for temporary files, both empty at first."""

    home: Path
    temporary: Path

    def environment(self, hub: str) -> dict[str, str]:
        return {
            "PATH": os.environ["PATH"],
            "HOME": str(self.home),
            "BENTOML_HOME": str(self.home),
            "TMPDIR": str(self.temporary),
            "HF_ENDPOINT": hub,
            "TQDM_POSITION": "-1",  # shows the progress bar although standard error is no terminal
        }

    def run(self, *arguments: str, hub: str = "http://127.0.0.1:1", pinned: bool = True) -> tuple[int, str, str]:
        """Exit status, standard output and standard error. pinned: False to have the catalogue ask for `WEIGHTS`."""
        script = COMMAND if pinned else ["-c", RUN_WITH_CHECKSUM]
        done = subprocess.run(
            [sys.executable, *script, *arguments],
            cwd=ROOT,
            env=self.environment(hub),
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stdout, done.stderr

    def stored(self) -> list[Path]:
        return sorted((self.home / "models").rglob("*.nemo"))

    def recorded(self) -> Any:
        """What BentoML knows about the newest version."""
        return ModelStore(self.home / "models").get(ENTRY.tag).info

    def left_behind(self) -> list[Path]:
        """Files that a failed run should not have left: in the store, or among the temporary ones."""
        return [path for path in (self.home / "models").rglob("*") if path.is_file()] + list(self.temporary.iterdir())


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    machine = Machine(tmp_path / "home", tmp_path / "temporary")
    machine.home.mkdir()
    machine.temporary.mkdir()
    return machine


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "brought.nemo"
    path.write_bytes(WEIGHTS)
    return path


def test_a_download_survives_a_broken_connection_is_recorded_and_happens_once(machine: Machine, hub: Hub) -> None:
    hub.etag, hub.breaks = SHA256, 1
    status, said, errors = machine.run(NAME, hub=hub.url, pinned=False)
    assert status == 0, errors
    assert said.endswith(SETTING)
    assert "100%" in errors  # the progress bar
    assert hub.requests[-2:] == ["GET from 0", f"GET from {10 << 20}"]

    (stored,) = machine.stored()
    assert stored.name == "parakeet-tdt-0.6b-v2.nemo"
    assert not stored.is_symlink()
    assert sha256(stored) == SHA256
    assert list(machine.temporary.iterdir()) == []
    recorded = machine.recorded()
    origin = {"model": NAME, "source": f"https://huggingface.co/{NAME}", "sha256": SHA256, "revision": REVISION}
    assert recorded.labels == origin
    assert recorded.metadata == {**origin, "languages": ["en"], "size_bytes": len(WEIGHTS)}

    asked = len(hub.requests)
    status, said, errors = machine.run(NAME, hub=hub.url)
    assert (status, errors) == (0, "")
    assert said == f"{NAME} is already in the BentoML store: {stored}\n{SETTING}"
    assert len(hub.requests) == asked


def test_a_hub_that_redirects_and_offers_xet_is_asked_for_a_file_by_ordinary_http(machine: Machine, hub: Hub) -> None:
    """huggingface_hub took another path, which hung for minutes where the store did not answer."""
    hub.etag, hub.redirects = SHA256, True
    status, said, errors = machine.run(NAME, hub=hub.url, pinned=False)
    assert (status, said.endswith(SETTING)) == (0, True), errors
    assert hub.requests == ["GET from 0"]
    assert hub.elsewhere == []  # no token for Xet was asked for
    assert sha256(machine.stored()[0]) == SHA256


def test_the_hubs_checksum_counts_where_the_catalogue_has_none(machine: Machine, hub: Hub) -> None:
    name = "nvidia/parakeet-tdt_ctc-110m"
    published = CATALOGUE[name].published
    assert published
    assert published.sha256 is None
    hub.path = f"/{name}/resolve/{published.revision}/{published.file_name}"
    status, _, errors = machine.run(name, hub=hub.url)
    assert (status, "names no sha256" in errors) == (1, True)
    hub.etag = SHA256
    hub.content = WEIGHTS[:-1] + b"?"
    status, _, errors = machine.run(name, hub=hub.url)
    assert (status, f"not {SHA256}" in errors) == (1, True)
    hub.content = WEIGHTS
    status, said, _ = machine.run(name, hub=hub.url)
    assert (status, said.splitlines()[-1]) == (0, f"STT_MODEL={name}")


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (401, "Invalid username or password."),
        (404, "Repository not found"),
        (403, "Access to this model is restricted"),
    ],
)
def test_the_hubs_own_reason_is_told_and_the_network_is_not_blamed(
    machine: Machine, hub: Hub, status: int, reason: str
) -> None:
    hub.refuses = status, reason
    code, _, errors = machine.run(NAME, hub=hub.url)
    assert code == 1
    assert errors.count("\n") == 1
    assert f"the hub answers {status}" in errors
    assert reason in errors
    assert "--from" not in errors


def test_a_hub_that_offers_another_file_is_refused_before_the_download(machine: Machine, hub: Hub) -> None:
    hub.etag = SHA256
    status, _, errors = machine.run(NAME, hub=hub.url)
    assert status == 1
    assert errors.count("\n") == 1
    assert SHA256 in errors
    assert hub.requests == ["HEAD from 0"]
    assert machine.left_behind() == []


def test_a_download_with_another_checksum_is_not_kept(machine: Machine, hub: Hub) -> None:
    hub.content = WEIGHTS[:-1] + b"?"
    status, said, errors = machine.run(NAME, hub=hub.url, pinned=False)
    assert (status, said) == (1, "")
    assert "the download's sha256 is" in errors.splitlines()[-1]
    assert "Traceback" not in errors
    assert machine.left_behind() == []


def test_without_network_one_line_says_what_to_do(machine: Machine) -> None:
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))  # bound but not listening: connections are refused
        status, said, errors = machine.run(NAME, hub=f"http://127.0.0.1:{unused.getsockname()[1]}")
    assert (status, said) == (1, "")
    assert errors.count("\n") == 1
    assert f"{NAME} was not fetched" in errors
    assert "Connection refused" in errors
    assert "--from parakeet-tdt-0.6b-v2.nemo" in errors
    assert machine.left_behind() == []


def test_a_stopped_download_leaves_nothing_behind(machine: Machine, hub: Hub) -> None:
    hub.stalls = True
    with subprocess.Popen(
        [sys.executable, *COMMAND, NAME],
        cwd=ROOT,
        env=machine.environment(hub.url),
        stderr=subprocess.PIPE,
        text=True,
    ) as running:
        give_up = time.monotonic() + 30
        while "GET from 0" not in hub.requests and time.monotonic() < give_up:
            time.sleep(0.05)
        running.send_signal(signal.SIGTERM)
        _, errors = running.communicate(timeout=30)
    assert running.returncode == 130
    assert errors.splitlines()[-1] == f"{NAME} was not fetched: interrupted"
    assert machine.left_behind() == []


def test_a_stop_while_the_store_copies_leaves_no_half_made_model(
    machine: Machine, weights: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = ModelStore(machine.home / "models")
    BentoMLContainer.model_store.set(store)

    def copy_a_part(_: Path, target: Path, **__: object) -> None:
        Path(target, "parakeet-tdt-0.6b-v2.nemo").write_bytes(WEIGHTS[:1000])
        raise KeyboardInterrupt

    monkeypatch.setattr(shutil, "copytree", copy_a_part)
    try:
        with pytest.raises(KeyboardInterrupt):
            fetch.store(ENTRY, weights, SHA256, source="a test")
    finally:
        BentoMLContainer.model_store.reset()
    assert machine.left_behind() == []


def test_a_file_that_was_brought_is_imported_offline_and_only_once(machine: Machine, weights: Path) -> None:
    status, said, errors = machine.run(NAME, "--from", str(weights))
    assert status == 0
    assert said.endswith(SETTING)
    assert errors == f"note: {weights} is not the published file, whose sha256 is {PINNED_SHA256}\n"
    (stored,) = machine.stored()
    assert stored.name == "parakeet-tdt-0.6b-v2.nemo"
    assert sha256(stored) == SHA256
    assert stored.parent.stat().st_mode & 0o777 == 0o755  # the service may run as another user
    recorded = machine.recorded().metadata
    assert (recorded["sha256"], recorded["source"]) == (SHA256, "file brought.nemo")
    assert "revision" not in recorded

    status, said, errors = machine.run(NAME, "--from", str(weights))
    assert (status, errors) == (0, "")
    assert "already in the BentoML store" in said


def test_a_damaged_copy_in_the_store_is_replaced(machine: Machine, weights: Path) -> None:
    machine.run(NAME, "--from", str(weights))
    (stored,) = machine.stored()
    stored.write_bytes(WEIGHTS[:1000])
    status, _, errors = machine.run(NAME, "--from", str(weights), pinned=False)
    assert (status, errors) == (0, "")  # no note: here the catalogue's checksum is this file's
    assert sha256(stored) == SHA256


def test_an_older_version_in_the_store_can_not_be_replaced_by_itself(machine: Machine, weights: Path) -> None:
    machine.run(NAME, "--from", str(weights))
    (older,) = machine.stored()
    weights.write_bytes(b"newer")
    machine.run(NAME, "--from", str(weights))
    status, _, errors = machine.run(NAME, "--from", str(older))
    assert status == 1
    assert errors.endswith(f"is in the store already: set STT_MODEL={ENTRY.tag}:{SHA256[:12]}\n")
    assert sha256(older) == SHA256


def test_a_file_that_is_not_there_is_said_in_one_line(machine: Machine) -> None:
    status, said, errors = machine.run(NAME, "--from", "/no/such.nemo")
    assert (status, said) == (1, "")
    assert errors == f"{NAME} was not fetched: [Errno 2] No such file or directory: '/no/such.nemo'\n"


def test_an_unknown_name_lists_those_that_can_be_fetched(machine: Machine) -> None:
    status, _, errors = machine.run("parakeet-tdt-tiny")
    assert status == 2
    for name, entry in {**CATALOGUE, **DIARIZERS}.items():
        assert (repr(name) in errors.splitlines()[-1].partition("choose from")[2]) == (entry.published is not None)
