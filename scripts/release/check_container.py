"""Checks what docs/container.md promises of the image, on the one that container.py has built, without any network.

    python -m scripts.release.check_container [--sbom FILE]

Runs itself in a network that has nothing but loopback, starts the image there as its own user with a read-only root,
and prints a line for each promise. Exits with status 1 if one is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import psutil  # type: ignore[import-untyped]
import soundfile
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.sync.connection import Connection

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from scripts.make.container import Image, Outside, mount, read_image, start
from scripts.make.sbom import make_bill_of_materials

SAMPLES = BUNDLED_FILE.parent / "samples"
PUBLISHED_NAME = "nvidia/parakeet-tdt-0.6b-v2"
URL = "http://127.0.0.1:3000"
LIVE = "ws://127.0.0.1:3000/ws"
READY_SECONDS = 20
END_SECONDS = 60
REFUSED_SECONDS = 1  # after the signal, in which a new caller gets its refusal
UPLOADS, SOCKETS = 20, 10  # in flight at the signal
FRAME_SECONDS = 0.1
COMPILERS = re.compile(r"(cc|gcc|g\+\+|c\+\+|clang|ld|as|make|rustc|nvcc|git)(-[\d.]+)?|.*-linux-gnu-(gcc|g\+\+|ld|as)")
CACHES = ("root/.cache", "home/bentoml/.cache", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_Packages",
          "tmp/*", "var/tmp/*")  # fmt: skip
SECRET_NAMES = re.compile(
    r"\.env|\.netrc|\.pypirc|pip\.conf|id_(rsa|ed25519|ecdsa)|credentials|auth\.json|\.git-credentials"
)
SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
PUBLIC = {"app/.venv/lib/python3.11/site-packages/tornado/test/test.key"}  # of its tests, in every release
SMALL = 100_000  # bytes; no key is larger

Check = Callable[[bool, str], None]  # whether a promise is kept, and its words


class Container:
    """A running container, and when it was started."""

    def __init__(self, image: Image, root: Path, tmp: Path, log: Path, models: Path | None = None, *env: str) -> None:
        self.log = log
        self.began = time.monotonic()
        with log.open("ab") as output:
            self.process = start(image, root, Outside(tmp, output.fileno(), models, env))

    def wait_until_ready(self) -> float:
        """Wait until it is ready; the seconds since the start. Raises AssertionError if it ends first."""
        while self.process.poll() is None and time.monotonic() - self.began < 120:
            try:
                if httpx.get(f"{URL}/readyz", timeout=2).status_code == 200:
                    return time.monotonic() - self.began
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"the container did not get ready:\n{self.log.read_text()[-3000:]}")

    def processes(self) -> list[psutil.Process]:
        """All processes of the container, beginning with its first."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def named(self, word: str) -> psutil.Process:
        """The first process with this word in its command."""
        return next(one for one in self.processes() if word in one.cmdline())

    def ask_to_end(self) -> None:
        """Send SIGTERM to the first process."""
        self.processes()[0].send_signal(signal.SIGTERM)

    def end(self) -> int:
        """Send SIGTERM, and wait; the exit status."""
        self.ask_to_end()
        return self.process.wait(END_SECONDS)

    def kill(self) -> None:
        """End it with SIGKILL, if it still runs."""
        self.process.kill()
        self.process.wait(END_SECONDS)


def look_inside(image: Image, root: Path, check: Check) -> None:
    """The image has no compiler, no cache and no secret."""
    folders = [root / "usr/bin", root / "usr/local/bin", root / "usr/sbin", root / "app/.venv/bin"]
    compilers = [path.name for one in folders for path in one.glob("*") if COMPILERS.fullmatch(path.name)]
    check(not compilers, f"no compiler, linker, make or git {compilers or ''}")
    caches = [str(path.relative_to(root)) for one in CACHES for path in root.glob(one) if path.stat().st_size]
    check(not caches, f"no cache of packages {caches or ''}")
    secrets = sorted(set(find_secrets(image, root)) - PUBLIC)
    check(not secrets, f"no secret in its variables and files {secrets or ''}")


def find_secrets(image: Image, root: Path) -> Iterator[str]:
    """Names of variables and files that may be secrets."""
    yield from (one.partition("=")[0] for one in image.environment if SECRET_VARIABLE.search(one.partition("=")[0]))
    for folder, folders, files in os.walk(root):
        folders[:] = [one for one in folders if not Path(folder, one).is_symlink()]
        for path in (Path(folder, name) for name in files):
            if path.is_symlink() or not path.is_file():
                continue
            if SECRET_NAMES.fullmatch(path.name) or (
                path.stat().st_size < SMALL and path.suffix != ".py" and PRIVATE_KEY.search(path.read_bytes())
            ):
                yield str(path.relative_to(root))


def look_at_processes(container: Container, user: int, check: Check) -> None:
    """The processes have the image's user, and no capability."""
    processes = container.processes()
    check({one.uids().real for one in processes} == {user}, f"{len(processes)} processes, all of user {user}")
    states = [Path(f"/proc/{one.pid}/status").read_text() for one in processes]
    capabilities = {line.split()[1] for state in states for line in state.splitlines() if line.startswith("Cap")}
    check(capabilities == {"0" * 16} and all("NoNewPrivs:\t1" in state for state in states), "none has any capability")


def try_to_write(image: Image, root: Path, tmp: Path, check: Check) -> None:
    """Only /tmp can be written to."""
    script = "for f in / /app /app/.venv /home/bentoml /home/bentoml/bento/src /etc; do touch $f/x; done; touch /tmp/x"
    with tempfile.TemporaryFile() as output:
        start(image, root, Outside(tmp, output.fileno()), "sh", "-c", script).wait(END_SECONDS)
        output.seek(0)
        refused = output.read().decode().count("Read-only file system")
    check(refused == 6 and (tmp / "x").exists(), f"{refused} of 6 folders refuse to be written to; /tmp does not")
    (tmp / "x").unlink(missing_ok=True)


def read_sample(name: str) -> tuple[Path, dict[str, Any]]:
    """A bundled recording, and its entry in samples.json."""
    described = json.loads((SAMPLES / "samples.json").read_text())
    return SAMPLES / name, next(one for one in described if one["file"] == name)


def transcribe(check: Check) -> None:
    """An upload is transcribed."""
    path, described = read_sample("short.flac")
    text = post(path.read_bytes()).json().get("text")
    check(text == described["text"], f"a sample is transcribed: {text!r}")


def transcribe_live(check: Check) -> None:
    """Live speech is transcribed."""
    path, described = read_sample("short.flac")
    with open_session(path) as socket:
        socket.send(json.dumps({"type": "end"}))
        text = " ".join(read_finals(socket))
        is_right = (text, socket.close_code) == (described["text"], 1000)
    check(is_right, f"/ws: it is transcribed live: {text!r}, then close code {socket.close_code}")


def open_session(path: Path, end: float | None = None) -> ClientConnection:
    """A live session that has received the recording, or its first `end` seconds, and no end of the stream."""
    sound, rate = soundfile.read(path, dtype="int16")
    socket = connect(f"{LIVE}?sample_rate={rate}", proxy=None, compression=None)
    frame = int(FRAME_SECONDS * rate)
    sent = sound[: int(end * rate) if end else None]
    for at in range(0, len(sent), frame):
        socket.send(sent[at : at + frame].astype("<i2").tobytes())
    return socket


def read_finals(socket: Connection) -> list[str]:
    """The texts of all finals until the server closes the socket."""
    texts: list[str] = []
    with suppress(ConnectionClosed):
        while True:
            message = json.loads(socket.recv(timeout=END_SECONDS))
            texts += [message["text"]] if message.get("type") == "final" else []
    return texts


def post(sound: bytes) -> httpx.Response:
    """Upload a recording; the answer."""
    return httpx.post(f"{URL}/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": sound}, timeout=300)


def look_at_health(root: Path, check: Check) -> None:
    """/healthz has the digests of the Bento's labels."""
    health: dict[str, Any] = httpx.get(f"{URL}/healthz").json()
    check(health["status"] == "ok", f"/healthz: {health['model']} on {health['device']}")
    description = (root / "home/bentoml/bento/bento.yaml").read_text()
    labels = dict(re.findall(r"^  (source|lock|model): (\w+)$", description, re.MULTILINE))
    shown = ", ".join(f"{name} {value[:12]}" for name, value in health["digests"].items())
    check(health["digests"] == labels, f"its digests are the Bento's labels: {shown}")


def end_at_work(container: Container, check: Check) -> None:
    """SIGTERM while uploads are in flight and sockets are in the middle of an utterance."""
    path, described = read_sample("short.flac")
    sound = read_sample("two-minutes.flac")[0].read_bytes()
    alone = post(sound).json()["text"]
    end_of_speech = described["words"][-1]["end"] + 0.05  # no pause, so the session waits for more
    sockets = [open_session(path, end_of_speech) for _ in range(SOCKETS)]
    with ThreadPoolExecutor(UPLOADS) as pool:
        uploads = [pool.submit(post, sound) for _ in range(UPLOADS)]
        while read_metric("stt_queue_audio_seconds") < 60:
            time.sleep(0.02)
        time.sleep(1)  # until all of them are in
        in_flight, unfinished = sum(not one.done() for one in uploads), sum(is_silent(one) for one in sockets)
        signalled = time.monotonic()
        container.ask_to_end()
        look_at_refusals(signalled, check)
        texts = [(read_finals(socket), socket.close_code) for socket in sockets]
        answers = [one.result() for one in uploads]
    status = container.process.wait(END_SECONDS)
    seconds = time.monotonic() - signalled
    whole = sum(one.status_code == 200 and one.json()["text"] == alone for one in answers)
    check(
        in_flight > UPLOADS / 2 and whole == UPLOADS,
        f"SIGTERM with {in_flight} of {UPLOADS} uploads of two minutes unanswered: {whole} get their whole text",
    )
    finalized = sum(one == ([described["text"]], 1001) for one in texts)
    check(
        unfinished == finalized == SOCKETS,
        f"and {unfinished} sockets in the middle of an utterance: {finalized} get its final, and close code 1001",
    )
    check(status == 0, f"then exit status {status}, {seconds:.1f} s after the signal")


def is_silent(socket: Connection) -> bool:
    """Whether the server has sent nothing yet."""
    try:
        socket.recv(timeout=0)
    except TimeoutError:
        return True
    return False


def read_metric(metric: str) -> float:
    """The value of one of the service's metrics."""
    return float(re.findall(rf"^{metric} (\S+)", httpx.get(f"{URL}/metrics").text, re.MULTILINE)[0])


def look_at_refusals(signalled: float, check: Check) -> None:
    """New callers are refused, once the worker knows of the signal. signalled: when it was sent."""
    while (listed := httpx.get(f"{URL}/v1/models")).status_code == 200 and time.monotonic() - signalled < END_SECONDS:
        time.sleep(0.01)
    noticed = time.monotonic() - signalled
    upload, ready = post(read_sample("short.flac")[0].read_bytes()), httpx.get(f"{URL}/readyz")
    statuses = [listed.status_code, upload.status_code, ready.status_code]
    try:
        connect(LIVE, proxy=None).close()
    except InvalidStatus as refused:
        statuses.append(refused.response.status_code)
    taken = time.monotonic() - signalled
    check(
        statuses == [503] * 4 and taken < REFUSED_SECONDS and int(upload.headers["retry-after"]) > 0,
        f"{noticed:.2f} s after SIGTERM it refuses: a request, an upload, /readyz and a socket get "
        f"{', '.join(map(str, statuses))} within {taken - noticed:.2f} s",
    )


def status_of(url: str) -> int:
    """The status of an answer; 0 if there is none."""
    try:
        return httpx.get(url, timeout=2).status_code
    except httpx.TransportError:
        return 0


def survive(image: Image, root: Path, tmp: Path, log: Path, check: Check) -> None:
    """What is killed is started again; `kill -9` of the parent ends the container, as an engine expects it."""
    for _ in range(2):
        container = Container(image, root, tmp, log)
        try:
            container.wait_until_ready()
            for word in ("parakeet_stt.processes.device", "_bentoml_impl.worker.service"):
                killed, process = time.monotonic(), container.named(word)
                process.kill()
                process.wait(END_SECONDS)
                while status_of(f"{URL}/readyz") != 200:
                    time.sleep(0.1)
                seconds = time.monotonic() - killed
                check(seconds < READY_SECONDS, f"kill -9 of {word}: ready again after {seconds:.1f} s")
            left = {path.name for path in tmp.iterdir()}
            killed = time.monotonic()
            container.named("serve").kill()
            status = container.process.wait(END_SECONDS)
        finally:
            container.kill()
        check(status != 0, f"kill -9 of the parent: exit status {status} after {time.monotonic() - killed:.1f} s")
    again = Container(image, root, tmp, log)
    try:
        seconds = again.wait_until_ready()
        check(seconds <= READY_SECONDS, f"ready again {seconds:.1f} s after the second restart")
        stays = left & {path.name for path in tmp.iterdir()}
        check(not stays, f"nothing of the killed containers is left in /tmp {sorted(stays) or ''}")
        transcribe(check)
    finally:
        status = again.end()
    remains = sorted(path.name for path in tmp.iterdir())
    check(status == 0 and not remains, f"SIGTERM: exit status {status}, /tmp is empty {remains or ''}")


def serve_mounted(image: Image, root: Path, tmp: Path, log: Path, check: Check) -> None:
    """A model of a mounted store is served: here the bundled one, imported under a published one's name."""
    with tempfile.TemporaryDirectory() as store:
        Path(store).chmod(0o755)
        subprocess.run(
            [sys.executable, "-m", "parakeet_stt", "fetch", PUBLISHED_NAME, "--from", BUNDLED_FILE],
            env={**os.environ, "BENTOML_HOME": store}, check=True, capture_output=True,
        )  # fmt: skip
        container = Container(image, root, tmp, log, Path(store, "models"), f"STT_MODEL={PUBLISHED_NAME}")
        try:
            container.wait_until_ready()
            model = httpx.get(f"{URL}/healthz").json()["model"]
            check(model == PUBLISHED_NAME, f"with a store mounted and STT_MODEL set, it serves {model}")
            transcribe(check)
        finally:
            container.end()


@contextmanager
def make_tmp() -> Iterator[Path]:
    """A tmpfs that is /tmp of all containers, one after another, as in a pod."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777,size=1g", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def main() -> None:
    """Check everything, and print a line for each promise."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", type=Path, metavar="FILE", help="where to write the list of the contents")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # in a network of its own
    given = parser.parse_args()
    if not given.alone:
        module = ["-m", "scripts.release.check_container", *sys.argv[1:]]
        alone = ["unshare", "--net", "--mount", sys.executable, *module, "--alone"]
        sys.exit(subprocess.run(alone).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    broken = 0

    def check(kept: bool, promise: str) -> None:
        nonlocal broken
        broken += not kept
        print("ok    " if kept else "BROKEN", promise.strip(), flush=True)

    image = read_image()
    with mount() as root, make_tmp() as tmp, tempfile.NamedTemporaryFile() as log:
        bill = make_bill_of_materials(root)
        if given.sbom:
            given.sbom.write_text(json.dumps(bill, indent=1) + "\n")
        kinds = [one.get("purl", "model").partition("/")[0].removeprefix("pkg:") for one in bill["components"]]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        print(f"       {image.size_bytes / 1e9:.2f} GB; of components it lists {counts}")
        look_inside(image, root, check)
        container = Container(image, root, tmp, Path(log.name))
        try:
            seconds = container.wait_until_ready()
            check(seconds <= READY_SECONDS, f"ready {seconds:.1f} s after the start, with loopback for a network")
            look_at_processes(container, (root / "home/bentoml").stat().st_uid, check)
            try_to_write(image, root, tmp, check)
            look_at_health(root, check)
            transcribe(check)
            transcribe_live(check)
            end_at_work(container, check)
        finally:
            container.kill()
        survive(image, root, tmp, Path(log.name), check)
        serve_mounted(image, root, tmp, Path(log.name), check)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
