"""The device process: owns one recognizer and its queue, and serves all fronts.

python -m parakeet_stt.processes.device FOLDER NUMBER RESTARTS
"""

from __future__ import annotations

import dataclasses
import gc
import logging
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from parakeet_stt import engines
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.device.ledger import Ledger
from parakeet_stt.device.messages import VERSION, Welcome
from parakeet_stt.device.server import DeviceServer
from parakeet_stt.device.start import BatchSettings, prepare
from parakeet_stt.engines import catalogue
from parakeet_stt.errors import StartupError
from parakeet_stt.ipc.limits import allow_many_descriptors
from parakeet_stt.media.filters import USUAL_RATES, save_filter
from parakeet_stt.memory import return_freed_memory
from parakeet_stt.processes.lifeline import Lifeline
from parakeet_stt.processes.paths import Paths
from parakeet_stt.protocols import Engine
from parakeet_stt.server import settings as service_settings
from parakeet_stt.server.digests import compute_digests
from parakeet_stt.server.settings import Settings

logger = logging.getLogger("parakeet_stt.device")
SOURCE = Path(__file__).parents[2]
BEAT_SECONDS = 1.0
PACE_SECONDS = 0.25  # between two notes of how fast the device is

LoadEngine = Callable[[Path, Settings, int, Path | None], Engine]


def load_engine(path: Path, settings: Settings, number: int, diarizer: Path | None) -> Engine:
    """The engine of the model at `path`, with the diarizer if there is one, on the device of this number, from 0."""
    from parakeet_stt.engines.loading import EngineSettings, load

    return load(
        path,
        EngineSettings(
            device=settings.device,
            precision=settings.precision,
            threads=settings.threads,
            encoder=settings.encoder,
            diarizer=diarizer,
            worker=number + 1,
            workers=settings.devices,
        ),
    )


def main(load: LoadEngine = load_engine) -> None:
    """Load, and serve until the lifeline closes and no front is connected."""
    paths, number, restarts = Paths(Path(sys.argv[1])), int(sys.argv[2]), int(sys.argv[3])
    lifeline = Lifeline()
    for ignored in (signal.SIGINT, signal.SIGTERM):  # fronts finish their requests first
        signal.signal(ignored, signal.SIG_IGN)
    os.environ["PROMETHEUS_MULTIPROC_DIR"] = str(paths.metrics)  # before prometheus_client is imported
    allow_many_descriptors()
    engines.set_cache_folder(paths.folder)
    try:
        _serve(paths, number, restarts, lifeline, load)
    except StartupError as exc:
        lifeline.fail(exc.message)
        sys.exit(1)


def _serve(paths: Paths, number: int, restarts: int, lifeline: Lifeline, load: LoadEngine) -> None:
    from parakeet_stt.server.monitoring.logs import announce, configure
    from parakeet_stt.server.monitoring.metrics import Metrics

    settings = service_settings.load()
    configure(settings.log_level)
    source = catalogue.read_source(paths.source)
    diarizer = catalogue.read_source(paths.diarizer).path if paths.diarizer.exists() else None
    metrics, ledger = Metrics(paths.metrics), Ledger(paths.ledger(number))
    metrics.device_restarts.inc(min(restarts, 1))
    gc.disable()  # loading makes no garbage, and looking for it takes a third of the time
    with ThreadPoolExecutor(1) as beside:
        digesting = beside.submit(
            partial(compute_digests, SOURCE, source.path, recorded=source.sha256, diarizer=diarizer)
        )
        engine = load(source.path, settings, number, diarizer)
        recognizer = engine.recognizer
        limits = BatchSettings(settings.max_batch, settings.max_utterance_seconds, settings.batch_seconds)
        budget = prepare(recognizer, limits)
        if engine.diarizer:
            engine.diarizer.warm_up()
    for rate in USUAL_RATES:
        _make_filter(paths.filters, rate)
    welcome = Welcome(
        VERSION,
        recognizer.device,
        recognizer.precision,
        recognizer.precision_reason,
        recognizer.config,
        list(recognizer.vocabulary),
        engine.detector is not None,
        digesting.result().named(),
        dataclasses.astuple(engine.diarizer.layout) if engine.diarizer else None,
    )
    batcher = Batcher(recognizer, engine.detector, budget, on_report=metrics.record, diarizer=engine.diarizer)
    server = DeviceServer(batcher, welcome, make_filter=partial(_make_filter, paths.filters))
    ledger.set_limits(max_waiting=settings.max_queue_seconds, max_sessions=settings.max_sessions)

    measured = 0.0

    def measure() -> None:
        nonlocal measured
        if time.monotonic() - measured < PACE_SECONDS:
            return
        measured = time.monotonic()
        ledger.set_pace(speed=budget.speed, batch_seconds=budget.limits.seconds)
        metrics.batch_budget_seconds.set(budget.limits.seconds)
        metrics.device_memory_bytes.set(recognizer.memory_bytes())

    measure()
    if not restarts and not number:
        announce(source.name, recognizer, is_demo=source.is_demo)
    threading.Thread(target=_beat, args=(lifeline,), daemon=True).start()
    gc.collect()
    return_freed_memory()  # imports and weights in their first form left 100 MB
    gc.freeze()  # no later collection looks at what was loaded
    gc.enable()
    lifeline.say_ready()
    # What batches have freed is kept for the next ones, while there are any.
    server.serve(paths.device(number), lifeline.socket, measure, return_freed_memory)


def _beat(lifeline: Lifeline) -> None:
    while True:
        lifeline.beat()
        time.sleep(BEAT_SECONDS)


def _make_filter(folder: Path, rate: int) -> None:
    from parakeet_stt.engines.resampling_filters import make_filter

    save_filter(folder, rate, make_filter)


if __name__ == "__main__":
    main()
