"""What several tests need: the bundled samples, the real tiny model, and a real server on a real port."""

from __future__ import annotations

import atexit
import gc
import io
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import av
import httpx
import numpy as np
import pytest
from httpx._transports import default
from xdist.scheduler import LoadFileScheduling

from parakeet_stt.audio import Audio, Samples
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.media.demux import decode
from parakeet_stt.server.settings import Settings
from scripts.bench.serving import ROOT as ROOT
from scripts.bench.serving import free_port as free_port
from scripts.bench.serving import read_counters
from tests.services.preloaded import ADDRESS, forking

if TYPE_CHECKING:
    from parakeet_stt.engines.parakeet import Parakeet

# httpx reads all certificates for each client, and so for each `httpx.get`, of which there are thousands: 50 ms of
# processor time each.
default.create_ssl_context = cache(httpx.create_ssl_context)  # type: ignore[attr-defined]

SAMPLES = ROOT / "models" / "parakeet-tdt-tiny" / "samples"
START_SECONDS = 120  # a loaded machine; an idle one needs a tenth
PORT_TRIES = 3  # BentoML takes two more ports than it is told; another connection may have one a moment later
OWN_SETTINGS = "exposed|guarded|speaking"  # the session's servers but the one with defaults, which most files use
PLAIN, PRELOADED = "service:ParakeetSTT", "tests.services.preloaded_service:ParakeetSTT"


@dataclass(frozen=True)
class Sample:
    """A bundled recording, what is said in it, and when."""

    path: Path
    seconds: float
    text: str
    words: list[dict[str, Any]]

    def audio(self) -> Audio:
        from parakeet_stt.engines.resampling_filters import make_filter

        with self.path.open("rb") as file:
            return decode(file, max_seconds=1000, make_filter=make_filter)


@pytest.fixture(scope="session")
def samples() -> dict[str, Sample]:
    described = json.loads((SAMPLES / "samples.json").read_text())
    return {
        Path(one["file"]).stem: Sample(SAMPLES / one["file"], one["seconds"], one["text"], one["words"])
        for one in described
    }


@pytest.fixture(scope="session")
def engine() -> Parakeet:
    from parakeet_stt.engines.parakeet import Parakeet  # 10 s of processor time, which only tests of the engine take

    return Parakeet(BUNDLED_FILE, device="cpu")


@dataclass(frozen=True)
class Server:
    """A running service. refused: a file with the addresses elsewhere that it tried to reach. process: the parent's."""

    url: str
    log: Path
    refused: Path
    process: int

    @property
    def openai_url(self) -> str:
        return f"{self.url}/v1"

    def counters(self) -> dict[str, float]:
        """The metrics, by name and labels."""
        return read_counters(self.url)

    def counter(self, name: str) -> float:
        """A metric, of all labels together."""
        return sum(value for one, value in self.counters().items() if one.partition("{")[0] == name)


def clean_environment(**changes: str) -> dict[str, str]:
    """This process's environment without settings of the service, and with `changes`."""
    names = {
        str(alias)
        for field in Settings.model_fields.values()
        for alias in getattr(field.validation_alias, "choices", ())
    }
    kept = {name: value for name, value in os.environ.items() if name not in names}
    return {**kept, "BENTOML_DO_NOT_TRACK": "True", **changes}


class ByServer(LoadFileScheduling):  # type: ignore[misc]
    """One file of tests after the other to whichever worker is free; the files that share `OWN_SETTINGS` to one."""

    def _split_scope(self, nodeid: str) -> str:
        file: str = super()._split_scope(nodeid)
        return "of one worker" if shares_a_server(file) else file


@cache
def shares_a_server(file: str) -> bool:
    """Whether its tests use a server that few files use, so that a second worker would start another for few tests."""
    return bool(re.search(rf"\b({OWN_SETTINGS}): Server\b", (ROOT / file).read_text()))


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> LoadFileScheduling | None:
    return ByServer(config, log) if config.getoption("dist") == "loadfile" else None


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """All of pytest-xdist's workers share one process that forks."""
    node.workerinput[ADDRESS] = preloaded()


def pytest_configure(config: pytest.Config) -> None:
    if hasattr(config, "workerinput"):
        os.environ[ADDRESS] = config.workerinput[ADDRESS]


def pytest_collection_finish() -> None:
    """What is imported by now stays: no collection of garbage looks at it again, a second each time with NeMo."""
    gc.freeze()


@cache
def preloaded() -> str:
    """The address of the process that forks device processes, until the test run ends."""
    if ADDRESS in os.environ:
        return os.environ[ADDRESS]
    context = forking()
    atexit.register(context.__exit__, None, None, None)
    return context.__enter__()


class Serve:
    """`bentoml serve` in a process of its own that can reach no other machine, ended when the `with` ends.

    target: PLAIN where the test looks at how the service starts, or at its processes.
    """

    def __init__(
        self,
        log: Path,
        *,
        target: str = PRELOADED,
        folder: Path = ROOT,
        host: str = "127.0.0.1",
        **env: str,
    ) -> None:
        self.log, self.refused = log, log.with_name("refused")
        self.refused.touch()
        offline = {
            "PYTHONPATH": str(ROOT / "tests" / "offline"),
            "REFUSED_CONNECTIONS": str(self.refused),
            "STT_FRONTS": "1",  # on any machine, unless a test says otherwise
        }
        if target.startswith("tests."):
            offline[ADDRESS] = preloaded()
        self.environment = clean_environment(**{**offline, **env})
        self.command = [str(Path(sys.executable).with_name("bentoml")), "serve", target, "--host", host]
        self.folder = folder
        self._start()

    def _start(self) -> None:
        self.port = free_port()
        with self.log.open("wb") as output:
            self.process = subprocess.Popen(
                [*self.command, "--port", str(self.port)],
                cwd=self.folder, stdout=output, stderr=subprocess.STDOUT, env=self.environment,
            )  # fmt: skip
        self.server = Server(f"http://127.0.0.1:{self.port}", self.log, self.refused, self.process.pid)

    def __enter__(self) -> Server:
        for left in reversed(range(PORT_TRIES)):
            if self.becomes_healthy():
                return self.server
            self.__exit__()
            said = self.log.read_text()
            if not left or "Address already in use" not in said:
                break
            self._start()
        raise AssertionError(f"the server did not start:\n{said[-4000:]}")

    def becomes_healthy(self) -> bool:
        """Whether it is there in time."""
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self.process.poll() is None:
            try:
                if httpx.get(f"{self.server.url}/healthz", timeout=5).status_code == 200:
                    return True
            except httpx.TransportError:
                pass  # not listening yet
            time.sleep(0.2)
        return False

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait(30)


@pytest.fixture(scope="session")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with its defaults."""
    with Serve(tmp_path_factory.mktemp("server") / "log") as running:
        yield running


@pytest.fixture(scope="session")
def exposed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service on all addresses, without keys, with limits of seconds that are soon reached and a log of everything.

    It is told that its model knows two languages, and has other names. Its log has what other tests did too.
    """
    settings: Any = {
        "STT_MAX_AUDIO_SECONDS": "240", "STT_MAX_QUEUE_SECONDS": "20", "STT_LOG_LEVEL": "debug",
        "STT_LANGUAGES": "de,en", "STT_MODEL_ALIASES": "Systran/faster-whisper-small", "STT_UNKNOWN_FIELDS": "ignore",
    }  # fmt: skip
    with Serve(tmp_path_factory.mktemp("exposed") / "log", host="0.0.0.0", **settings) as running:
        yield running


@pytest.fixture(scope="session")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with keys, pages of one origin, and limits low enough to reach.

    Sessions of earlier tests end a moment after their clients have left.
    """
    folder = tmp_path_factory.mktemp("guarded")
    (folder / "keys").write_text("file-key\nclé\n", "utf-8")
    settings: Any = {
        "STT_API_KEYS": "first-key,second-key", "STT_API_KEYS_FILE": str(folder / "keys"), "STT_OPEN_TO_ALL": "metrics",
        "STT_CORS_ORIGINS": "https://app.example", "STT_MAX_AUDIO_SECONDS": "20", "STT_MAX_UPLOAD_BYTES": "3000000",
        "STT_MAX_SESSIONS": "2", "STT_SESSION_IDLE_SECONDS": "1",
    }  # fmt: skip
    with Serve(folder / "log", **settings) as running:
        yield running


@pytest.fixture(scope="session")
def speaking(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The service with the bundled diarizer."""
    with Serve(tmp_path_factory.mktemp("speaking") / "log", STT_DIARIZER="sortformer-tiny") as running:
        yield running


def encode(
    samples: Samples, *, container: str, codec: str, rate: int, layout: str = "mono", given_rate: int = 16_000
) -> bytes:
    """A media file of mono `samples` at `given_rate`, brought to another rate and layout by FFmpeg."""
    out = io.BytesIO()
    frame = av.AudioFrame.from_ndarray(np.ascontiguousarray(samples[None]), format="fltp", layout="mono")
    frame.sample_rate, frame.pts = given_rate, 0
    with av.open(out, "w", format=container, options={"strict": "experimental"}) as file:
        stream = file.add_stream(codec, rate=rate, options={"strict": "experimental"})
        assert isinstance(stream, av.AudioStream)
        stream.layout = layout
        stream.codec_context.open()
        resampler = av.AudioResampler(
            format=stream.format, layout=layout, rate=rate, frame_size=stream.codec_context.frame_size or 1024
        )
        parts = [*resampler.resample(frame), *resampler.resample(None)] if len(samples) else []
        for part in parts:
            file.mux(stream.encode(part))
        file.mux(stream.encode(None))
    return out.getvalue()


def without_case_or_punctuation(text: str) -> list[str]:
    return "".join(c for c in text.lower() if c.isalnum() or c == " ").split()
