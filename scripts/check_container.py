"""Knows what is promised of the image, and tries it: on the image that container.py has built, without any network.

    .venv/bin/python scripts/check_container.py [--sbom FILE]

It moves itself into a network that has nothing but loopback, starts the image there as its own user with a read-only
root, and prints a line for each promise. Ends with status 1 if one is not kept.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
import wave
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))  # run as a file, Python looks in scripts/ only

import httpx
import numpy as np
import psutil  # type: ignore[import-untyped]
import soundfile
from container import Image, Outside, mounted, read, start
from sbom import bill_of_materials

from models.catalogue import BUNDLED_FILE, V2

FETCH = Path(__file__).with_name("fetch_model.py")
SAMPLES = BUNDLED_FILE.parent / "samples"
URL = "http://127.0.0.1:3000"
READY_SECONDS = 20
END_SECONDS = 60
REPEATS = 15  # of two minutes: long enough to be at work when the signal comes
COMPILERS = re.compile(r"(cc|gcc|g\+\+|c\+\+|clang|ld|as|make|rustc|nvcc|git)(-[\d.]+)?|.*-linux-gnu-(gcc|g\+\+|ld|as)")
CACHES = ("root/.cache", "home/bentoml/.cache", "var/cache/apt/archives/*.deb", "var/lib/apt/lists/*_Packages",
          "tmp/*", "var/tmp/*")  # fmt: skip
SECRET_NAMES = re.compile(
    r"\.env|\.netrc|\.pypirc|pip\.conf|id_(rsa|ed25519|ecdsa)|credentials|auth\.json|\.git-credentials"
)
SECRET_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSWORD|CREDENTIAL", re.IGNORECASE)
PRIVATE_KEY = re.compile(rb"-----BEGIN [A-Z ]*PRIVATE KEY-----")
PUBLIC = {"app/.venv/lib/python3.11/site-packages/tornado/test/test.key"}  # of its tests, in each of its releases
SMALL = 100_000  # bytes; no key is larger

Check = Callable[[bool, str], None]


class Container:
    """A running container, and when it was started."""

    def __init__(self, image: Image, root: Path, tmp: Path, log: Path, models: Path | None = None, *env: str) -> None:
        self.log = log
        self.began = time.monotonic()
        with log.open("ab") as output:
            self.process = start(image, root, Outside(tmp, output.fileno(), models, env))

    def until_ready(self) -> float:
        """Wait for it; the seconds since the start. Raises AssertionError if it ends first."""
        while self.process.poll() is None and time.monotonic() - self.began < 120:
            try:
                if httpx.get(f"{URL}/readyz", timeout=2).status_code == 200:
                    return time.monotonic() - self.began
            except httpx.TransportError:
                time.sleep(0.05)
        raise AssertionError(f"it did not get ready:\n{self.log.read_text()[-3000:]}")

    def processes(self) -> list[psutil.Process]:
        """All of the container's, the first one first."""
        found: list[psutil.Process] = psutil.Process(self.process.pid).children(recursive=True)
        return found

    def worker(self) -> psutil.Process:
        """The one that holds the model."""
        (found,) = (one for one in self.processes() if "_bentoml_impl.worker.service" in one.cmdline())
        return found

    def end(self) -> int:
        """Ask the first process to end; its exit status."""
        self.processes()[0].send_signal(signal.SIGTERM)
        return self.process.wait(END_SECONDS)

    def kill(self) -> None:
        """End it without asking, if it is still there."""
        self.process.kill()
        self.process.wait(END_SECONDS)


def look_inside(image: Image, root: Path, check: Check) -> None:
    """What is in the image, and what is not."""
    folders = [root / "usr/bin", root / "usr/local/bin", root / "usr/sbin", root / "app/.venv/bin"]
    compilers = [path.name for one in folders for path in one.glob("*") if COMPILERS.fullmatch(path.name)]
    check(not compilers, f"no compiler, linker, make or git {compilers or ''}")
    caches = [str(path.relative_to(root)) for one in CACHES for path in root.glob(one) if path.stat().st_size]
    check(not caches, f"no cache of packages {caches or ''}")
    check(
        not (found := sorted(set(secrets(image, root)) - PUBLIC)), f"no secret in its variables and files {found or ''}"
    )


def secrets(image: Image, root: Path) -> Iterator[str]:
    """What looks like one."""
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
    """As whom they run, and what they may."""
    processes = container.processes()
    check({one.uids().real for one in processes} == {user}, f"{len(processes)} processes, all of user {user}")
    states = [Path(f"/proc/{one.pid}/status").read_text() for one in processes]
    powers = {line.split()[1] for state in states for line in state.splitlines() if line.startswith("Cap")}
    check(powers == {"0" * 16} and all("NoNewPrivs:\t1" in state for state in states), "none has any capability")


def try_to_write(image: Image, root: Path, tmp: Path, check: Check) -> None:
    """Nowhere but in /tmp."""
    script = "for f in / /app /app/.venv /home/bentoml /home/bentoml/bento/src /etc; do touch $f/x; done; touch /tmp/x"
    with tempfile.TemporaryFile() as output:
        start(image, root, Outside(tmp, output.fileno()), "sh", "-c", script).wait(END_SECONDS)
        output.seek(0)
        refused = output.read().decode().count("Read-only file system")
    check(refused == 6 and (tmp / "x").exists(), f"{refused} of 6 folders refuse to be written to; /tmp does not")
    (tmp / "x").unlink(missing_ok=True)


def transcribe(check: Check) -> None:
    """The main job, over HTTP."""
    sample = next(one for one in json.loads((SAMPLES / "samples.json").read_text()) if one["file"] == "short.flac")
    answer = post((SAMPLES / sample["file"]).read_bytes())
    check(answer.json().get("text") == sample["text"], f"a sample is transcribed: {answer.json().get('text')!r}")


def post(sound: bytes) -> httpx.Response:
    return httpx.post(f"{URL}/v1/audio/transcriptions", data={"model": "whisper-1"}, files={"file": sound}, timeout=300)


def look_at_health(root: Path, check: Check) -> None:
    """What it says it is made of."""
    health: dict[str, Any] = httpx.get(f"{URL}/healthz").json()
    check(health["status"] == "ok", f"/healthz: {health['model']} on {health['device']}")
    description = (root / "home/bentoml/bento/bento.yaml").read_text()
    labels = dict(re.findall(r"^  (source|lock|model): (\w+)$", description, re.MULTILINE))
    shown = ", ".join(f"{name} {value[:12]}" for name, value in health["digests"].items())
    check(health["digests"] == labels, f"its digests are the Bento's labels: {shown}")


def long_recording() -> bytes:
    samples, rate = soundfile.read(SAMPLES / "two-minutes.flac", dtype="int16")
    file = io.BytesIO()
    with wave.open(file, "wb") as written:
        written.setparams((1, 2, rate, 0, "NONE", ""))
        written.writeframes(np.tile(samples, REPEATS).tobytes())
    return file.getvalue()


def end_at_work(container: Container, check: Check) -> None:
    """SIGTERM while a request is in flight."""
    sound, answers = long_recording(), list[httpx.Response]()
    asking = threading.Thread(target=lambda: answers.append(post(sound)))
    asking.start()
    while not float(re.findall(r"^stt_queue_audio_seconds (\S+)", httpx.get(f"{URL}/metrics").text, re.MULTILINE)[0]):
        time.sleep(0.02)
    asked = time.monotonic()
    in_flight = not answers
    status = container.end()
    seconds = time.monotonic() - asked
    asking.join()
    (answer,) = answers
    words = len(answer.json().get("text", "").split())
    check(
        in_flight and answer.status_code == 200 and words > 100 * REPEATS and status == 0,
        f"SIGTERM amid {2 * REPEATS} minutes of audio: {answer.status_code} with {words} words, then exit status "
        f"{status}, {seconds:.1f} s after the signal",
    )


def survive(image: Image, root: Path, tmp: Path, log: Path, check: Check) -> None:
    """`kill -9` of the worker, and what a restart policy does then."""
    for _ in range(2):
        container = Container(image, root, tmp, log)
        try:
            container.until_ready()
            left = {path.name for path in tmp.iterdir()}
            killed = time.monotonic()
            container.worker().kill()
            status = container.process.wait(END_SECONDS)
        finally:
            container.kill()
        check(status != 0, f"kill -9 of the worker: exit status {status} after {time.monotonic() - killed:.1f} s")
    again = Container(image, root, tmp, log)
    try:
        seconds = again.until_ready()
        check(seconds <= READY_SECONDS, f"ready again {seconds:.1f} s after the second restart")
        stays = left & {path.name for path in tmp.iterdir()}
        check(not stays, f"nothing in /tmp is of those that were killed {sorted(stays) or ''}")
        transcribe(check)
    finally:
        status = again.end()
    remains = sorted(path.name for path in tmp.iterdir())
    check(status == 0 and not remains, f"SIGTERM: exit status {status}, /tmp is empty {remains or ''}")


def serve_mounted(image: Image, root: Path, tmp: Path, log: Path, check: Check) -> None:
    """A model of a store that is mounted: here the bundled one, imported under the published one's name."""
    with tempfile.TemporaryDirectory() as store:
        Path(store).chmod(0o755)
        subprocess.run(
            [sys.executable, FETCH, V2.name, "--from", BUNDLED_FILE], env={**os.environ, "BENTOML_HOME": store},
            check=True, capture_output=True,
        )  # fmt: skip
        container = Container(image, root, tmp, log, Path(store, "models"), f"STT_MODEL={V2.name}")
        try:
            container.until_ready()
            model = httpx.get(f"{URL}/healthz").json()["model"]
            check(model == V2.name, f"with a store mounted and STT_MODEL set, it serves {model}")
            transcribe(check)
        finally:
            container.end()


@contextmanager
def temporary() -> Iterator[Path]:
    """What all the containers have for /tmp, one after the other, as a pod's containers do."""
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["mount", "-t", "tmpfs", "-o", "mode=1777,size=1g", "none", folder], check=True)
        try:
            yield Path(folder)
        finally:
            subprocess.run(["umount", folder], check=True)


def main() -> None:
    """Try everything, and say how it went."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sbom", type=Path, metavar="FILE", help="where the list of the contents is written")
    parser.add_argument("--alone", action="store_true", help=argparse.SUPPRESS)  # it has its own network
    given = parser.parse_args()
    if not given.alone:
        alone = ["unshare", "--net", "--mount", sys.executable, *sys.argv, "--alone"]
        sys.exit(subprocess.run(alone).returncode)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    broken = 0

    def check(kept: bool, promise: str) -> None:
        nonlocal broken
        broken += not kept
        print("ok    " if kept else "BROKEN", promise.strip(), flush=True)

    image = read()
    with mounted() as root, temporary() as tmp, tempfile.NamedTemporaryFile() as log:
        bill = bill_of_materials(root)
        if given.sbom:
            given.sbom.write_text(json.dumps(bill, indent=1) + "\n")
        kinds = [one.get("purl", "model").partition("/")[0].removeprefix("pkg:") for one in bill["components"]]
        counts = ", ".join(f"{kinds.count(kind)} {kind}" for kind in sorted(set(kinds)))
        print(f"       {image.size_bytes / 1e9:.2f} GB; of components it lists {counts}")
        look_inside(image, root, check)
        container = Container(image, root, tmp, Path(log.name))
        try:
            seconds = container.until_ready()
            check(seconds <= READY_SECONDS, f"ready {seconds:.1f} s after the start, with loopback for a network")
            look_at_processes(container, (root / "home/bentoml").stat().st_uid, check)
            try_to_write(image, root, tmp, check)
            look_at_health(root, check)
            transcribe(check)
            # /ws: a session's finals belong here too
            end_at_work(container, check)
        finally:
            container.kill()
        survive(image, root, tmp, Path(log.name), check)
        serve_mounted(image, root, tmp, Path(log.name), check)
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
