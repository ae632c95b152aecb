"""BentoML's entry: starts the processes, and composes a front. What it composes decides everything else."""

from __future__ import annotations

import atexit
import gc
import os
import secrets
import signal
import subprocess
import sys
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before bentoml reads it: a private service calls nobody
# BentoML removes this folder from the path after importing this file.
sys.path.append(str(Path(__file__).parent))

from parakeet_stt.processes.paths import RUN_FOLDER, Paths

# Before prometheus_client reads it: our folder for metrics, not BentoML's. The parent, without one yet, counts nothing.
os.environ.update(PROMETHEUS_MULTIPROC_DIR=f"{os.environ.get(RUN_FOLDER)}/metrics")

import bentoml
import uvicorn

from parakeet_stt.device.client import DeviceClient
from parakeet_stt.device.link import DeviceLink
from parakeet_stt.engines import catalogue
from parakeet_stt.errors import StartupError
from parakeet_stt.ipc.limits import allow_many_descriptors
from parakeet_stt.processes.supervisor import KEEP_MEMORY, ONE_THREAD, Program, Supervisor
from parakeet_stt.server import components, tempdir
from parakeet_stt.server.app import create_app
from parakeet_stt.server.components import Components, Processes
from parakeet_stt.server.connections.http import HttpProtocol
from parakeet_stt.server.connections.sockets import SocketProtocol
from parakeet_stt.server.connections.watch import Watch
from parakeet_stt.server.digests import Digests
from parakeet_stt.server.files.bento import NATIVE_PATH, NativeMiddleware
from parakeet_stt.server.http.middleware import RequestMiddleware
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.monitoring.logs import configure, warn_if_exposed
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import Settings, front_count, has_page, load

DEVICE_MODULE, MEDIA_MODULE = "parakeet_stt.processes.device", "parakeet_stt.processes.media"
# Made and not freed yet, after which a front looks for cycles. With Python's own 700 a thirtieth of a front's time went
# into looking.
YOUNG_OBJECTS = 10_000
GPU_DEVICES = ("/dev/nvidiactl", "/dev/dxg")  # on Linux, on WSL; without one there is no need to ask torch
app = create_app(has_page=has_page())

# Of the server that BentoML makes later. Speech in frames of 20 ms gets no smaller by compressing each, and both ends
# would spend a third of their time on it.
uvicorn.Config = partial(  # type: ignore[assignment, misc]
    uvicorn.Config, http=HttpProtocol, ws=SocketProtocol, ws_per_message_deflate=False
)

# What `bentoml containerize` builds on. With its own "debian" BentoML installs a compiler and git; with a distribution
# that it does not know, nothing. Nothing is needed: the lock's wheels bring their libraries, libsndfile among them.
image = (
    bentoml.images.Image(base_image="python:3.11-slim-bookworm", distro="slim", python_version="3.11")
    .run("mkdir -p /etc/uv && echo 'no-cache = true' > /etc/uv/uv.toml")  # a cache would be as large as what it caches
    .run("command -v uv >/dev/null || pip install --no-cache-dir uv==0.13.9")  # the version of requirements-uv.lock
    # BentoML makes these when they are missing, which it can't where the root is read-only.
    .run("cd /home/bentoml && mkdir bentos models envs tmp prometheus_multiproc_dir")
)


def start_processes(settings: Settings) -> Paths:
    """Start the device processes and the media program, which end with this process. Raises StartupError."""
    source = catalogue.resolve(settings.model, settings.languages)
    catalogue.check_archive(source.path)
    os.environ["STT_MAX_UTTERANCE_SECONDS"] = str(settings.longest_utterance_seconds(source.longest_utterance_seconds))
    catalogue.read_ahead(source.path)
    diarizer = catalogue.resolve_diarizer(settings.diarizer)
    detects = [] if _has_gpu(settings) else ["--detect"]
    paths = Paths(tempdir.create())
    paths.create()
    catalogue.write_source(source, paths.source)
    if diarizer:
        catalogue.write_source(diarizer, paths.diarizer)
    os.environ[RUN_FOLDER] = str(paths.folder)  # of the fronts, which BentoML starts later
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(paths.metrics)
    os.environ.setdefault("STT_SIGNING_KEY", secrets.token_hex())  # one for all fronts
    os.environ.update(KEEP_MEMORY)
    programs_of_devices = [
        Program(f"device process {number}", DEVICE_MODULE, [str(paths.folder), str(number)], counts_restarts=True)
        for number in range(settings.devices)
    ]
    os.environ.update(ONE_THREAD)  # of fronts and media workers
    without_settings = {name: value for name, value in os.environ.items() if not name.startswith("STT_")}
    programs = [
        # A process that reads untrusted files gets no keys.
        Program("the media program", MEDIA_MODULE, [str(paths.media), *detects], without_settings),
        *programs_of_devices,
    ]  # fmt: skip

    def fail(reason: str) -> None:
        paths.failure.write_text(reason)
        print(f"parakeet-stt: {reason}", file=sys.stderr, flush=True)
        os.kill(os.getpid(), signal.SIGTERM)

    supervisor = Supervisor(programs, fail)

    def end() -> None:
        supervisor.close()
        has_failed = paths.failure.exists()
        tempdir.remove(paths.folder)
        if has_failed:
            os._exit(1)

    atexit.register(end)
    supervisor.start()
    return paths


def _has_gpu(settings: Settings) -> bool:
    """Whether the recognizer will run on a GPU. Asks a process of its own: torch would stay in this one's memory."""
    if settings.device == "cpu" or (settings.device == "auto" and not any(map(os.path.exists, GPU_DEVICES))):
        return False
    code = "import sys; from parakeet_stt.engines import devices; print(devices.resolve(sys.argv[1]).type)"
    asked = subprocess.run(  # noqa: S603
        [sys.executable, "-c", code, settings.device], capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
    )  # fmt: skip
    if asked.returncode:
        raise StartupError(asked.stderr.strip().splitlines()[-1].partition(": ")[2])
    return asked.stdout.strip() == "cuda"


@bentoml.service(
    name="parakeet_stt",
    image=image,
    workers=front_count(),
    # Our middleware stops this timer for what it lets in. BentoML keeps 4.7 KB of each request, a refused one too, for
    # as long.
    traffic={"timeout": 5},
    metrics={"enabled": False},
    # The middleware's line and count are the account of a request; BentoML's own would be two more. Its own route keeps
    # the id that BentoML answers with.
    logging={"access": {"enabled": False}},
    tracing={"excluded_urls": ["^(?!.*/bentoml/)"]},
)
@bentoml.asgi_app(app)
class ParakeetSTT:
    """Speech to text over HTTP: one of the service's fronts. Ready means that a device process is loaded and warm."""

    def __init__(self) -> None:
        settings = load()
        configure(settings.log_level)
        allow_many_descriptors()
        paths = Paths(Path(os.environ[RUN_FOLDER])) if RUN_FOLDER in os.environ else start_processes(settings)
        settings = load()  # the model may have its own longest utterance
        self._temporary = tempdir.create(paths.folder)
        links = [DeviceLink(paths.device(number), paths.ledger(number)) for number in range(settings.devices)]

        def check() -> None:
            if paths.failure.exists():
                raise StartupError(paths.failure.read_text())

        welcome, *_ = [link.connect(check) for link in links]
        Watch.ledger = links[0].ledger
        source = catalogue.read_source(paths.source)
        model = ServedModel(
            name=source.name,
            languages=source.languages,
            owned_by=source.owned_by,
            created=source.created,
            is_demo=source.is_demo,
            device=welcome.device,
            precision=welcome.precision,
            precision_reason=welcome.precision_reason,
            config=welcome.config,
            digests=Digests(**welcome.digests),
            tells_speakers=welcome.speakers is not None,
            letters=frozenset(piece for piece in welcome.vocabulary if len(piece) == 1),
            aliases=frozenset(settings.model_aliases),
        )
        detector = None
        if not welcome.detects:
            from parakeet_stt.engines.silero_onnx import OnnxDetector

            detector = OnnxDetector()
        processes = Processes(DeviceClient(links), paths.media, paths.filters, detector)
        metrics = Metrics(paths.metrics)
        if (bentoml.server_context.worker_index or 1) == 1:
            warn_if_exposed(settings, sys.argv)
        self._components = components.build(settings, model, processes, metrics)
        app.state.components = self._components
        gc.collect()
        gc.freeze()  # no later collection looks at what was loaded
        gc.set_threshold(YOUNG_OBJECTS)

    @bentoml.api(route=NATIVE_PATH)
    async def transcribe(
        self,
        audio: Path,
        language: str | None = None,
        keywords: tuple[str, ...] = (),
        prompt: str = "",
        speakers: bool = False,
        channels: str = "mixed",
    ) -> dict[str, Any]:
        """For BentoML's own client and BentoCloud's playground: OpenAI's verbose_json, with words and segments."""
        raise NotImplementedError("NativeMiddleware has parakeet_stt/server/files/routes.py answer this route")

    def __is_ready__(self) -> bool:
        """Read by BentoML for /readyz."""
        return self._components.is_alive

    @bentoml.on_deployment
    @staticmethod
    def prepare() -> None:
        """Before any front starts: report settings or a model that can't work in one line; start the other processes.

        Exit status 1 if they can't work.
        """
        try:
            start_processes(load())
            # BentoML starts a front again that has ended, except where this says that it is in a container.
            os.environ.pop("BENTOML_CONTAINERIZED", None)
        except StartupError as exc:
            sys.exit(f"parakeet-stt: {exc}")

    @bentoml.on_shutdown
    def close(self) -> None:
        """End the threads before the interpreter ends, and leave no file."""
        self._components.close()
        tempdir.remove(self._temporary)


def _request_context() -> Any:
    running: Components | None = getattr(app.state, "components", None)
    return running and running.request_context


ParakeetSTT.add_asgi_middleware(RequestMiddleware, context=_request_context)  # type: ignore[attr-defined]
ParakeetSTT.add_asgi_middleware(NativeMiddleware, own=app)  # type: ignore[attr-defined]
