"""The parts that run the engine in this process: its speed, NeMo's own call, too large a batch, a profile."""

from __future__ import annotations

import gc
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import soundfile
import torch

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import nemo_archive
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.steps.transfer import pad_columns
from parakeet_stt.errors import OutOfMemory
from scripts.bench.gpu.arithmetic import seconds_of, wait
from scripts.bench.gpu.plan import Setup
from scripts.bench.serving import SAMPLE

SIZES = (1, 2, 4, 8, 16, 32, 64, 128, 256)
CLIP_SECONDS = (10, 24)  # a usual request; the longest utterance that is cut from a recording
PRECISIONS = ("bfloat16", "float16", "float32")
NEMO_SIZES = (1, 32, 128)
CELL_SECONDS = 2.0  # at most, of measuring one batch size
SHORT_SECONDS = 0.2
LOAD_SECONDS = 15.0  # of an engine, and to warm it up
SPARE_MEMORY = 2e9  # bytes; a batch of 256 × 24 s needs several times as much
TOP_KERNELS = 15


@dataclass(frozen=True, slots=True)
class Cell:
    """One batch size. rtfx: seconds of audio in a second, with the next batch launched before one is collected.

    latency_ms: of one batch alone, from the samples to the tokens. tokens: of a batch. captured: items of the widest
    batch before, which the search's CUDA graph was captured for. memory_gb: the most that was allocated.
    """

    precision: str
    clip_seconds: int
    batch: int
    rtfx: float
    latency_ms: float
    tokens: int
    captured: int
    memory_gb: float


def cut_clips(seconds: int, count: int) -> list[Audio]:
    """Clips of the bundled long sample, from other places each, as long as it has any."""
    samples, _ = soundfile.read(SAMPLE, dtype="float32")
    size = seconds * SAMPLE_RATE
    starts = [(index * 7 * SAMPLE_RATE) % (len(samples) - size) for index in range(count)]
    return [Audio(samples[start : start + size]) for start in starts]


@contextmanager
def loaded(setup: Setup, precision: str, **settings: Any) -> Iterator[Parakeet]:
    """An engine, whose memory is free afterwards."""
    engine = Parakeet(setup.model, device=setup.device, precision=precision, **settings)  # type: ignore[arg-type]
    try:
        yield engine
    finally:
        del engine
        gc.collect()
        if setup.is_gpu:
            torch.cuda.empty_cache()


def run_pipelined(engine: Parakeet, batch: Sequence[Audio], count: int) -> None:
    """`count` batches, each launched before the one before it is collected, as the service does it."""
    before = None
    for _ in range(count):
        pending = engine.launch(batch)
        if before:
            before.result()
        before = pending
    if before:
        before.result()


def measure_cell(engine: Parakeet, batch: Sequence[Audio], captured: int, budget: float) -> Cell:
    """One batch size; the first run is not counted, since it captures a graph and chooses kernels."""
    is_gpu = engine.device != "cpu"
    if is_gpu:
        torch.cuda.reset_peak_memory_stats()
    (found, *_) = [sum(len(one.tokens) for one in engine.recognize(batch)) for _ in range(2 if is_gpu else 1)]
    latencies: list[float] = []
    while not latencies or (len(latencies) < 10 and sum(latencies) < budget / 3):
        began = time.perf_counter()
        engine.recognize(batch)
        latencies.append(time.perf_counter() - began)
    count = max(3, min(100, int(budget / 2 / min(latencies))))
    began = time.perf_counter()
    run_pipelined(engine, batch, count)
    taken = time.perf_counter() - began
    seconds = sum(audio.duration for audio in batch)
    return Cell(
        engine.precision,
        round(batch[0].duration),
        len(batch),
        rtfx=round(count * seconds / taken, 1),
        latency_ms=round(1000 * float(np.median(latencies)), 2),
        tokens=found,
        captured=max(captured, len(batch)),
        memory_gb=round(torch.cuda.max_memory_allocated() / 1e9, 2) if is_gpu else 0.0,
    )


def measure_engine(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `engine`: every precision, clip length and batch size there is time for, warmed up as a service is."""
    until = time.monotonic() + seconds
    sizes: Sequence[int] = (1, 2) if setup.short else SIZES
    lengths: Sequence[int] = (2,) if setup.short else CLIP_SECONDS
    precisions: Sequence[str] = ("float32",) if setup.short else PRECISIONS
    cells: list[Cell] = []
    not_run: list[str] = []
    left = len(precisions) * len(lengths) * len(sizes)
    for precision in precisions:
        if cells and time.monotonic() + LOAD_SECONDS > until:
            not_run.append(f"{precision}: no time left")
            continue
        captured = sizes[-1] if setup.short else WARM[0]
        try:
            with loaded(setup, precision) as engine:
                engine.warm_up(captured, float(lengths[-1]))
                for length in lengths:
                    clips = cut_clips(length, max(sizes))
                    for size in sizes:
                        most = SHORT_SECONDS if setup.short else CELL_SECONDS
                        budget = min(most, (until - time.monotonic()) / max(1, left))
                        left -= 1
                        if time.monotonic() > until:
                            not_run.append(f"{precision}, {size} × {length} s: no time left")
                            continue
                        try:
                            cells.append(measure_cell(engine, clips[:size], captured, budget))
                            captured = cells[-1].captured
                        except OutOfMemory as exc:
                            not_run.append(f"{precision}, {size} × {length} s: {exc.message}")
        except Exception as exc:  # the other precisions are still worth measuring
            if not cells and precision == precisions[-1]:
                raise
            traceback.print_exc()
            not_run.append(f"{precision}: {type(exc).__name__}: {exc}"[:300])
    return {"cells": [asdict(cell) for cell in cells], "not_run": not_run}


def measure_nemo(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `nemo`: NeMo's own `transcribe()` on the same clips, in the engine's default precision."""
    precision = "float32" if setup.short or not setup.is_gpu else "bfloat16"
    model = nemo_archive.restore(setup.model).to(setup.device).to(getattr(torch, precision))
    sizes: Sequence[int] = (1,) if setup.short else NEMO_SIZES
    lengths: Sequence[int] = (2,) if setup.short else CLIP_SECONDS
    until = time.monotonic() + seconds
    rows = []
    for length in lengths:
        for size in sizes:
            clips = [clip.samples for clip in cut_clips(length, size)]

            def work(clips: Any = clips, size: int = size) -> None:
                model.transcribe(clips, batch_size=size, verbose=False)
                wait(setup.device)

            if time.monotonic() > until:
                break
            rows.append(
                {
                    "precision": precision,
                    "clip_seconds": length,
                    "batch": size,
                    "rtfx": round(
                        length * size / best_seconds(work, SHORT_SECONDS if setup.short else CELL_SECONDS), 1
                    ),
                }
            )
    return {"cells": rows}


def best_seconds(work: Callable[[], None], budget: float) -> float:
    """The shortest of as many runs as fit into the budget; the first is not counted."""
    work()
    times: list[float] = []
    while not times or (len(times) < 20 and sum(times) + times[-1] < budget):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times)


def measure_graphs(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `graphs`: small batches with the encoder's CUDA graphs beside the eager encoder."""
    found: dict[str, Any] = {}
    until = time.monotonic() + seconds
    for mode in ("eager", "graphs"):
        with loaded(setup, "bfloat16", encoder=mode) as engine:
            began = time.monotonic()
            engine.warm_up(*WARM)
            warmed = time.monotonic() - began
            cells = [
                asdict(measure_cell(engine, cut_clips(length, size), WARM[0], 0.6))
                for size, length in SMALL_BATCHES
                if time.monotonic() < until
            ]
            found[mode] = {"cells": cells, "seconds": round(warmed, 1)}
    return found


SMALL_BATCHES = ((1, 2), (1, 6), (4, 6), (16, 6), (1, 24))  # items, seconds
WARM = 128, 24.0  # items and seconds that the service prepares for
STAGE_BATCHES = ((1, 6), (1, 24), (16, 6), (64, 10), (64, 24), (128, 10))  # items, seconds


def measure_stages(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `stages`: what a batch's time goes to, each step on its own, queued many times.

    ms: of the step, on whichever of host and device takes longer. host_ms: until it is queued.
    """
    sizes: Sequence[tuple[int, int]] = ((1, 2),) if setup.short else STAGE_BATCHES
    rows = []
    with loaded(setup, "float32" if setup.short else "auto") as engine, torch.inference_mode():
        for count, length in sizes:
            batch = cut_clips(length, count)
            engine.recognize(batch)
            lengths = pad_columns([[clip.length for clip in batch]], engine._pad(batch).items)
            audio, sent = engine._upload.send(engine._pad(batch), [lengths])
            audio, numbers = audio.clone(), sent[0].clone()
            encoded, frames = engine._encoder(audio, numbers)
            found, _ = engine._decode(encoded, frames)
            steps: dict[str, Callable[[], object]] = {
                "upload": lambda batch=batch, lengths=lengths: engine._upload.send(engine._pad(batch), [lengths]),  # type: ignore[misc]
                "front end": lambda audio=audio, numbers=numbers: engine._model.preprocessor(  # type: ignore[misc]
                    input_signal=audio, length=numbers
                ),
                "front end, encoder": lambda audio=audio, numbers=numbers: engine._encoder(audio, numbers),  # type: ignore[misc]
                "search": lambda encoded=encoded, frames=frames: engine._decode(encoded, frames),  # type: ignore[misc]
                "scores": lambda encoded=encoded, found=found: engine._score(  # type: ignore[misc]
                    encoded, found, engine._likely_width(encoded, found)
                ),
                "all, launched": lambda batch=batch: engine.launch(batch),  # type: ignore[misc]
            }
            budget = seconds / 2 / len(sizes) / len(steps)
            rows.append({"batch": count, "clip_seconds": length, "steps": {
                name: {"ms": round(1000 * seconds_of(step, setup.device, budget), 3),
                       "host_ms": round(1000 * queueing_seconds(step, setup.device), 3)}
                for name, step in steps.items()
            }})  # fmt: skip
    return {"rows": rows}


def queueing_seconds(work: Callable[[], object], device: str) -> float:
    """Seconds until a call returns, with nothing queued on the device before: the median of five."""
    times = []
    for _ in range(5):
        wait(device)
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    wait(device)
    return float(np.median(times))


def measure_memory(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `memory`: a batch that does not fit fails as `OutOfMemory`, and the next one works.

    Of the GPU's memory only `SPARE_MEMORY` more than a usual batch needs may be used meanwhile. A second batch is in
    flight: its result must not be lost.
    """
    with loaded(setup, "bfloat16") as engine:
        usual = cut_clips(10, 8)
        expected = [[token.id for token in one.tokens] for one in engine.recognize(usual)]
        before = torch.cuda.memory_allocated()
        in_flight = engine.launch(usual)
        most = torch.cuda.memory_reserved() + SPARE_MEMORY
        torch.cuda.set_per_process_memory_fraction(most / torch.cuda.mem_get_info()[1])
        began = time.monotonic()
        try:
            engine.recognize(cut_clips(24, SIZES[-1]))
            outcome = f"{SIZES[-1]} × 24 s fitted into {SPARE_MEMORY / 1e9:.0f} GB more"
        except OutOfMemory as exc:
            outcome = f"OutOfMemory: {exc.message}"
        finally:
            torch.cuda.set_per_process_memory_fraction(1.0)
        taken = time.monotonic() - began
        flown = [[token.id for token in one.tokens] for one in in_flight.result()]
        after = [[token.id for token in one.tokens] for one in engine.recognize(usual)]
        return {
            "outcome": outcome,
            "seconds": round(taken, 2),
            "in_flight_survived": flown == expected,
            "next_batch_survived": after == expected,
            "allocated_gb_before_and_after": [round(before / 1e9, 2), round(torch.cuda.memory_allocated() / 1e9, 2)],
            "capacity_seconds": engine.capacity_seconds(),
        }


def measure_profile(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `profile`: one second of batches, and the kernels that took most of it.

    busy: share of the wall time in which kernels ran.
    """
    from torch.profiler import ProfilerActivity, profile

    size, length = (1, 2) if setup.short else (64, 24) if setup.is_gpu else (1, 10)
    with loaded(setup, "float32" if setup.short else "auto") as engine:
        batch = cut_clips(length, size)
        engine.recognize(batch)
        once = best_seconds(lambda: run_pipelined(engine, batch, 1), 0.1)
        count = 1 if setup.short else max(2, round(1.0 / once))
        activities = [ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if setup.is_gpu else [])]
        with profile(activities=activities) as profiler:
            began = time.perf_counter()
            run_pipelined(engine, batch, count)
            taken = time.perf_counter() - began
    kind = "self_device_time_total" if setup.is_gpu else "self_cpu_time_total"
    events = sorted(profiler.key_averages(), key=lambda event: -float(getattr(event, kind)))
    total = sum(float(getattr(event, kind)) for event in events)
    return {
        "batch": size,
        "clip_seconds": length,
        "batches": count,
        "wall_ms": round(1000 * taken, 1),
        "busy": round(total / 1e6 / taken, 3),
        "kernels": [
            {
                "name": event.key[:120],
                "ms": round(float(getattr(event, kind)) / 1000, 3),
                "percent": round(100 * float(getattr(event, kind)) / max(total, 1e-9), 1),
                "calls": event.count,
            }
            for event in events[:TOP_KERNELS]
        ],
    }
