"""BentoML's entry: composes settings, model, device, components and app. What it composes decides everything else."""

from __future__ import annotations

import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before bentoml reads it: a private service calls nobody
# BentoML's, where processes share metrics in files. Here each has its own, and under a read-only root no file.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

# BentoML removes this folder from the path after importing this file; workers import the engines later.
sys.path.append(str(Path(__file__).parent))

import bentoml

from parakeet_stt import engines
from parakeet_stt.device.start import DeviceLimits, StartedDevice, start_device
from parakeet_stt.engines import catalogue
from parakeet_stt.errors import StartupError
from parakeet_stt.server import components, tempdir
from parakeet_stt.server.app import create_app
from parakeet_stt.server.components import Components
from parakeet_stt.server.digests import compute_digests
from parakeet_stt.server.files import bento
from parakeet_stt.server.http.middleware import RequestMiddleware
from parakeet_stt.server.logs import announce, configure, warn_if_exposed
from parakeet_stt.server.metrics import Metrics
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.settings import Settings, load, worker_count

FOLDER = Path(__file__).resolve().parent
app = create_app()

# What `bentoml containerize` builds on. With its own "debian" BentoML installs a compiler and git; with a distribution
# that it does not know, nothing. Nothing is needed: the lock's wheels bring their libraries, libsndfile among them.
image = (
    bentoml.images.Image(base_image="python:3.11-slim-bookworm", distro="slim", python_version="3.11")
    .run("mkdir -p /etc/uv && echo 'no-cache = true' > /etc/uv/uv.toml")  # a cache would be as large as what it caches
    .run("command -v uv >/dev/null || pip install --no-cache-dir uv==0.13.9")  # the version of requirements-uv.lock
    # BentoML makes these when they are missing, which it can't where the root is read-only.
    .run("cd /home/bentoml && mkdir bentos models envs tmp prometheus_multiproc_dir")
)


def _start_device(settings: Settings, path: Path, metrics: Metrics) -> StartedDevice:
    def load_engine() -> Any:
        from parakeet_stt.engines.loading import EngineSettings, load  # seconds, which only workers spend

        worker = bentoml.server_context.worker_index or 1
        return load(
            path, EngineSettings(settings.device, settings.precision, settings.threads, worker, settings.workers)
        )

    limits = DeviceLimits(
        settings.max_batch, settings.max_utterance_seconds, settings.batch_seconds, settings.max_queue_seconds
    )
    return start_device(load_engine, limits, on_report=metrics.record, on_lost=components.exit_on_lost_device)


@bentoml.service(
    name="parakeet_stt",
    image=image,
    workers=worker_count(),
    traffic={"timeout": 900},
    metrics={"enabled": False},
    # BentoML traces each message of a socket, fifty a second of each session: half of the event loop's time.
    tracing={"excluded_urls": ["/ws$", "/v1/realtime$"]},
)
@bentoml.asgi_app(app)
class ParakeetSTT:
    """Speech to text over HTTP, one process a device. Ready means loaded and warm."""

    def __init__(self) -> None:
        settings = load()
        configure(settings.log_level)
        self._temporary = tempdir.create()
        engines.set_cache_folder(self._temporary)
        source = catalogue.resolve(settings.model)
        gc.disable()  # loading makes no garbage, and looking for it takes a third of the time
        metrics = Metrics()
        with ThreadPoolExecutor(1) as beside:
            digesting = beside.submit(partial(compute_digests, FOLDER, source.path, recorded=source.sha256))
            device = _start_device(settings, source.path, metrics)
        model = ServedModel(
            name=source.name,
            languages=source.languages,
            owned_by=source.owned_by,
            created=source.created,
            is_demo=source.is_demo,
            device=device.device_name,
            precision=device.precision,
            config=device.config,
            digests=digesting.result(),
        )
        announce(model)
        warn_if_exposed(settings, sys.argv)
        self._components = components.build(settings, model, device.link, device.detector, metrics)
        app.state.components = self._components
        gc.freeze()  # nor does any later collection look at what was loaded
        gc.enable()

    @bentoml.api(route="/bentoml/transcribe")
    async def transcribe(
        self,
        audio: Path,
        language: str | None = None,
        keywords: tuple[str, ...] = (),
        prompt: str = "",
    ) -> dict[str, Any]:
        """For BentoML's own client and BentoCloud's playground: OpenAI's verbose_json, with words and segments."""
        parts = self._components
        return await bento.transcribe(
            parts.transcriber, parts.model, audio, language=language, keywords=keywords, prompt=prompt
        )

    def __is_ready__(self) -> bool:
        """Read by BentoML for /readyz."""
        return self._components.is_alive

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Before any worker starts: report settings or a model that can't work in one line, with exit status 1."""
        try:
            settings = load()
            source = catalogue.resolve(settings.model)
            catalogue.check_archive(source.path)
            catalogue.read_ahead(source.path)
            if settings.device.startswith("cuda"):
                from parakeet_stt.engines import devices

                devices.resolve(settings.device)
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
