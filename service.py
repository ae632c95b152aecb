"""Composes the service: settings → model → serving → app. Decides nothing; what it composes does."""

from __future__ import annotations

import gc
import os
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # before bentoml reads it: a private service calls nobody
# BentoML's, where processes share metrics in files. Here each has its own, and under a read-only root no file.
os.environ.pop("PROMETHEUS_MULTIPROC_DIR", None)

# BentoML takes this folder off the path after importing this file; the model folder is imported later, by the worker.
sys.path.append(str(Path(__file__).parent))

import bentoml

from parakeet_stt import engines as models
from parakeet_stt.device.batch_budget import measured
from parakeet_stt.engines import catalogue
from parakeet_stt.errors import StartupError
from parakeet_stt.server import digests
from parakeet_stt.server import tempdir as scratch
from parakeet_stt.server.app import create_app
from parakeet_stt.server.files import bento as native
from parakeet_stt.server.files.serving import Engine, ServedModel, Serving
from parakeet_stt.server.http.middleware import Gate
from parakeet_stt.server.logs import announce, configure, warn_if_exposed
from parakeet_stt.server.settings import Settings, load, worker_count

if TYPE_CHECKING:
    from parakeet_stt.engines.parakeet import Parakeet

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


def _load(settings: Settings, path: Path, thread: ThreadPoolExecutor) -> tuple[Parakeet, Engine]:
    """The model, loaded, warm and measured. Runs in `thread`."""
    from parakeet_stt.engines import devices
    from parakeet_stt.engines.parakeet import Parakeet

    device = devices.of_worker(settings.device, bentoml.server_context.worker_index or 1, settings.workers)
    recognizer = Parakeet(path, device=device, precision=settings.precision, threads=settings.threads)
    recognizer.warm_up(settings.max_batch, settings.max_utterance_seconds)
    cost = measured(recognizer, most_items=settings.max_batch)
    return recognizer, Engine(recognizer, thread, cost, recognizer.room(), recognizer.memory_bytes)


@bentoml.service(
    name="parakeet_stt", image=image, workers=worker_count(), traffic={"timeout": 900}, metrics={"enabled": False}
)
@bentoml.asgi_app(app)
class ParakeetSTT:
    """Speech to text over HTTP, one process a device. Ready means loaded and warm."""

    def __init__(self) -> None:
        settings = load()
        configure(settings.log_level)
        self._scratch = scratch.claim()
        models.keep_caches_in(self._scratch)
        source = catalogue.resolve(settings.model)
        gc.disable()  # nothing of what is loaded now is ever thrown away, and looking for it takes a third of the time
        from parakeet_stt.engines.silero import SileroDetector

        thread = ThreadPoolExecutor(1, thread_name_prefix="device")
        loading = thread.submit(_load, settings, source.path, thread)
        made_of = digests.digests(FOLDER, source.path, recorded=source.sha256)
        recognizer, engine = loading.result()
        model = ServedModel(
            name=source.name,
            languages=source.languages,
            owned_by=source.owned_by,
            created=source.created,
            is_demo=source.is_demo,
            device=recognizer.device,
            precision=recognizer.precision,
            config=recognizer.config,
            digests=made_of,
        )
        announce(model)
        warn_if_exposed(settings, sys.argv)
        app.state.serving = Serving(settings, model, engine, SileroDetector())
        gc.freeze()  # nor does any later collection go over it
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
        return await native.transcribe(app.state.serving, audio, language, keywords, prompt)

    def __is_ready__(self) -> bool:
        """Read by BentoML for /readyz."""
        serving: Serving = app.state.serving
        return serving.is_alive

    @bentoml.on_deployment
    @staticmethod
    def check() -> None:
        """Before any worker starts: what can't be served is said in one line, with exit status 1."""
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
        """End the threads before the interpreter ends, and leave nothing."""
        app.state.serving.close()
        scratch.release(self._scratch)


ParakeetSTT.add_asgi_middleware(Gate, serving=lambda: getattr(app.state, "serving", None))  # type: ignore[attr-defined]
