"""Parts of a service that tests put together: a device over a recognizer that they override, and a front over it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import shutil
import socket
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Any, TypeVar

from parakeet_stt.audio import Audio
from parakeet_stt.device.batch_budget import BatchBudget, Cost
from parakeet_stt.device.batcher import Batcher
from parakeet_stt.device.client import DeviceClient
from parakeet_stt.device.ledger import Ledger
from parakeet_stt.device.link import DeviceLink
from parakeet_stt.device.messages import VERSION, Welcome
from parakeet_stt.device.server import DeviceServer
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.engines.silero_onnx import OnnxDetector
from parakeet_stt.media.filters import save_filter
from parakeet_stt.processes.paths import Paths
from parakeet_stt.processes.supervisor import Program
from parakeet_stt.protocols import (
    FRAME_SAMPLES,
    Chunk,
    ChunkResult,
    Diarizer,
    Done,
    Pending,
    Recognizer,
    SpeechDetector,
)
from parakeet_stt.server import components
from parakeet_stt.server.components import Components, Processes
from parakeet_stt.server.digests import Digests
from parakeet_stt.server.model import ServedModel
from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import Settings
from parakeet_stt.text.phrases import Phrases
from parakeet_stt.text.transcript import Hypothesis

SERVED = ServedModel("test", ("en",), "test", 0, True, "cpu", "float32", "", "", Digests("", "", ""))
MEDIA_PROGRAM = "parakeet_stt.processes.media"
T = TypeVar("T")


class FakeRecognizer:
    """A recognizer that a test overrides in part: `protocols.Recognizer` without a model."""

    device, precision, precision_reason, config = "cpu", "float32", "a test says so", ""
    frame_samples = FRAME_SAMPLES
    vocabulary: Sequence[str] = ()

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """Nothing."""

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        raise AssertionError("no recording was expected")

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        raise AssertionError("no live speech was expected")

    def launch(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> Pending[list[Hypothesis]]:
        return Done(self.recognize(batch, phrases))

    def launch_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> Pending[list[ChunkResult]]:
        return Done(self.decode_chunks(batch, phrases))

    def capacity_seconds(self) -> float | None:
        return None

    def memory_bytes(self) -> float:
        return 0.0


class RunningDevice:
    """A device server in a thread of this process, at a real socket. `client` is there while `run` runs.

    load: makes the recognizer, in that thread, which owns it. lost: what has ended the thread. idle_at: when it had
    nothing to do for a while.
    """

    def __init__(
        self,
        load: Callable[[], Recognizer],
        budget: BatchBudget,
        *,
        detector: SpeechDetector | None = None,
        diarizer: Diarizer | None = None,
        max_waiting: float | None = None,
        max_sessions: int = 256,
    ) -> None:  # the parts of a device
        self.paths = Paths(Path(tempfile.mkdtemp(prefix="stt-test-")))
        self.paths.create()
        self.metrics = Metrics()
        self.lost: list[BaseException] = []
        self.idle_at: list[float] = []
        self.client: DeviceClient
        self._load = load
        self._budget = budget
        self._detector = detector
        self._diarizer = diarizer
        self.ledger = Ledger(self.paths.ledger(0))
        self.ledger.set_limits(max_waiting=max_waiting, max_sessions=max_sessions)
        self.start()

    def start(self) -> None:
        """Start the thread; again, after it has ended, as the supervisor starts a process."""
        self._lifeline, theirs = socket.socketpair()
        self.thread = threading.Thread(target=self._serve, args=(theirs,), name="device")
        self.thread.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a front's work in an event loop, connected to the device."""

        async def main() -> T:
            async with self.connected():
                return await work

        return asyncio.run(main())

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[DeviceClient]:
        """A front that is connected while the context lasts."""
        link = DeviceLink(self.paths.device(0), self.paths.ledger(0))
        await asyncio.to_thread(link.connect, lambda: None)
        self.client = DeviceClient([link])
        self.client.start()
        try:
            yield self.client
        finally:
            self.client.close()

    def close(self) -> None:
        """End the thread, once no front is connected, and remove the folder."""
        self._lifeline.close()
        self.thread.join(20)
        assert not self.thread.is_alive()
        shutil.rmtree(self.paths.folder, ignore_errors=True)

    def _serve(self, lifeline: socket.socket) -> None:
        recognizer = self._load()
        batcher = Batcher(
            recognizer, self._detector, self._budget, on_report=self.metrics.record, diarizer=self._diarizer
        )
        welcome = Welcome(
            VERSION, recognizer.device, recognizer.precision, recognizer.precision_reason, recognizer.config,
            list(recognizer.vocabulary),
            self._detector is not None, {"source": "", "lock": "", "model": ""},
            dataclasses.astuple(self._diarizer.layout) if self._diarizer else None,
        )  # fmt: skip
        server = DeviceServer(
            batcher, welcome, make_filter=lambda rate: save_filter(self.paths.filters, rate, make_filter)
        )

        def measure() -> None:
            self.ledger.set_pace(speed=self._budget.speed, batch_seconds=self._budget.limits.seconds)

        measure()
        with lifeline:
            try:
                server.serve(self.paths.device(0), lifeline, measure, lambda: self.idle_at.append(time.monotonic()))
            except BaseException as exc:  # the end of the process
                self.lost.append(exc)


@contextmanager
def media_program(path: Path, *, module: str = MEDIA_PROGRAM, detect: bool = True) -> Iterator[Any]:
    """The program that forks media workers, at a socket; ended with the context."""
    environment = {**os.environ, "OPENBLAS_NUM_THREADS": "1"}  # as the service has it
    program = Program("media", module, [str(path), *(["--detect"] if detect else [])], environment)
    process, lifeline = program.start()
    try:
        assert lifeline.recv(100).startswith(b"ready")
        yield process
    finally:
        lifeline.close()
        with suppress(Exception):
            process.wait(20)
        process.kill()


class Front:
    """A device and a front over it in this process, with real media workers. `components` is there while `run` runs."""

    def __init__(self, device: RunningDevice, **settings: Any) -> None:
        self.device = device
        self.components: Components
        self._settings = Settings(**settings)
        self._media = media_program(device.paths.media, detect=device._detector is None)
        self._media.__enter__()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Run work that uses `components`, in an event loop."""

        async def main() -> T:
            device = self.device
            link = DeviceLink(device.paths.device(0), device.paths.ledger(0))
            welcome = await asyncio.to_thread(link.connect, lambda: None)
            processes = Processes(
                DeviceClient([link]), device.paths.media, device.paths.filters,
                None if welcome.detects else OnnxDetector(),
            )  # fmt: skip
            self.components = components.build(self._settings, SERVED, processes, device.metrics)
            try:
                async with self.components.running():
                    return await work
            finally:
                self.components.close()

        return asyncio.run(main())

    def close(self) -> None:
        """End everything."""
        self._media.__exit__(None, None, None)
        self.device.close()


def front_over(load: Callable[[], Recognizer], *, cost: Cost = Cost(0.1, 100), **device: Any) -> Front:  # noqa: B008
    """A front over this recognizer. load: makes it, in the device's thread. device: as `RunningDevice` takes it."""
    settings = Settings()
    budget = BatchBudget(cost, seconds=settings.max_utterance_seconds, items=settings.max_batch)
    return Front(RunningDevice(load, budget, **device))
