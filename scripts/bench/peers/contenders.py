"""The runtimes that are compared, each in a process of its own that waits for its turn."""

from __future__ import annotations

import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple, Protocol

from parakeet_stt.audio import Audio


@dataclass(frozen=True, slots=True)
class Job:
    """What a contender is made of. model: the .nemo file. onnx: folder of its export, `export.py`'s.

    peers: folder of what `others.py` needs.
    """

    runtime: str
    precision: str
    threads: int
    model: Path
    onnx: Path
    peers: Path

    @property
    def name(self) -> str:
        """As the table names it."""
        return f"{self.runtime}, {self.precision}"


class Turn(NamedTuple):
    """One batch of one contender. process, wall: seconds for all of it. encoder: processor time of the network alone.

    encoder is nan if the runtime has no call for it. tokens: that were found, of all clips.
    """

    process: float
    wall: float
    encoder: float
    tokens: int


class Runtime(Protocol):
    """A loaded contender."""

    def recognize(self, clips: Sequence[Audio]) -> int:
        """Decode the clips as one batch; the number of tokens that were found."""
        ...

    def encode(self, clips: Sequence[Audio]) -> object:
        """Features and encoder of the same batch, without a search. Raises NotImplementedError if no call does that."""
        ...


class Ours:
    """This engine."""

    def __init__(self, job: Job) -> None:
        from parakeet_stt.engines.parakeet import Parakeet

        self._engine = Parakeet(job.model, device="cpu", precision=job.precision, threads=job.threads)  # type: ignore[arg-type]

    def recognize(self, clips: Sequence[Audio]) -> int:
        """See `Runtime`."""
        return sum(len(one.tokens) for one in self._engine.recognize(clips))

    def encode(self, clips: Sequence[Audio]) -> object:
        """See `Runtime`."""
        import torch

        with torch.inference_mode():
            return self._engine._encode(clips)


class OnnxAsr:
    """onnx-asr over ONNX Runtime."""

    def __init__(self, job: Job) -> None:
        import onnx_asr
        import onnxruntime  # type: ignore[import-untyped]

        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = job.threads
        options.log_severity_level = 3
        quantization = None if job.precision == "float32" else job.precision
        self._model: Any = onnx_asr.load_model(
            "nemo-conformer-tdt", job.onnx, quantization=quantization, sess_options=options
        ).with_timestamps()

    def recognize(self, clips: Sequence[Audio]) -> int:
        """See `Runtime`."""
        return sum(len(one.tokens) for one in self._model.recognize([clip.samples for clip in clips]))

    def encode(self, clips: Sequence[Audio]) -> object:
        """See `Runtime`."""
        import numpy as np

        asr = self._model.asr
        samples = np.stack([clip.samples for clip in clips])  # all are as long
        lengths = np.full(len(clips), samples.shape[1], np.int64)
        return asr._encode(*asr._preprocessor(samples, lengths))


class Contender:
    """A runtime in a process of its own."""

    def __init__(self, job: Job, connection: Connection) -> None:
        self.job = job
        self._connection = connection

    def take_turn(self, size: int) -> Turn:
        """Decode a batch of so many clips now. Raises RuntimeError with what the runtime raised."""
        self._connection.send(size)
        turn: Turn = _received(self._connection)
        return turn


@contextmanager
def start(job: Job, load: Callable[[Job], Runtime]) -> Iterator[Contender]:
    """Load a contender, and end its process afterwards. Raises RuntimeError if it can't be loaded."""
    os.environ["OPENBLAS_NUM_THREADS"] = str(job.threads)  # the process has it before it loads numpy
    ours, theirs = get_context("spawn").Pipe()
    process = get_context("spawn").Process(target=_serve, args=(job, load, theirs), daemon=True)
    process.start()
    try:
        _received(ours)
        yield Contender(job, ours)
    finally:
        process.kill()
        process.join()


def _received(connection: Connection) -> Any:
    answer = connection.recv()
    if isinstance(answer, str):
        raise RuntimeError(answer)
    return answer


def _serve(job: Job, load: Callable[[Job], Runtime], connection: Connection) -> None:
    from scripts.bench.engine import cut_clips

    sys.path.append(str(job.peers / "site"))
    try:
        runtime = load(job)
        connection.send(None)
        while True:
            clips = cut_clips(connection.recv())
            connection.send(_measure(runtime, clips))
    except Exception as exc:  # a runtime may raise anything; that it can't run is a result
        connection.send(f"{type(exc).__name__}: {exc}")


def _measure(runtime: Runtime, clips: Sequence[Audio]) -> Turn:
    wall, process = time.perf_counter(), time.process_time()
    tokens = runtime.recognize(clips)
    wall, process = time.perf_counter() - wall, time.process_time() - process
    encoder = time.process_time()
    try:
        runtime.encode(clips)
        encoder = time.process_time() - encoder
    except NotImplementedError:
        encoder = math.nan
    return Turn(process, wall, encoder, tokens)
