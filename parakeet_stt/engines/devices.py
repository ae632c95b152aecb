"""Which device and precision a setting means on this machine."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import torch

from parakeet_stt.engines.cpu import precision as measured
from parakeet_stt.engines.cpu.precision import Choice
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError, StartupError, first_line

Precision = Literal["auto", "float32", "bfloat16", "float16", "int8"]
SET = "STT_PRECISION says so"


def use_threads(count: int) -> None:
    """Let torch use so many threads in what the calling thread does; 0: one fewer than there are cores.

    torch's threads spin while they wait for each other. When one has no core, all the others wait with theirs taken:
    with as many threads as cores and one other busy thread, batches take six times as long (docs/benchmarks.md).
    """
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    torch.set_num_threads(count or max(1, cores - 1))
    torch.get_num_threads()  # from here on it holds for this thread, whatever others set


def for_worker(device: str, worker: int, workers: int) -> str:
    """The device of one of several processes, numbered from 1: each has the GPU of its number, or all share the CPU.

    Raises StartupError for a setting that would put several on one GPU.
    """
    if workers == 1 or device == "cpu" or (device == "auto" and not torch.cuda.is_available()):
        return device
    if ":" in device:
        raise StartupError(f"STT_DEVICE is {device!r}, which {workers} workers can't share: set STT_DEVICE=cuda")
    return f"cuda:{worker - 1}"


def resolve(device: str) -> torch.device:
    """The device to run on; `auto` is the first GPU, or the CPU where there is none.

    Raises StartupError for a GPU that is not there.
    """
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    found = torch.device(device)
    if found.type == "cuda" and (found.index or 0) >= torch.cuda.device_count():
        raise StartupError(f"STT_DEVICE is {device!r}, and torch sees no such GPU here: set STT_DEVICE=cpu")
    return found


def weight_type(precision: Precision, device: torch.device, parameters: int) -> Choice:
    """What a precision setting means for a network of so many parameters; the type of what int8 leaves as it is.

    `auto` is bfloat16 on a GPU; on a CPU it is float32, or bfloat16 for a large network where that is faster.
    Raises StartupError for int8 on a GPU.
    """
    if precision == "int8":
        if device.type != "cpu":
            raise StartupError("STT_PRECISION=int8 is for a CPU: set STT_PRECISION=bfloat16")
        return Choice(torch.float32, SET)
    if precision != "auto":
        return Choice(getattr(torch, precision), SET)
    if device.type == "cpu":
        return measured.choose(parameters)
    return Choice(torch.bfloat16, "GPUs have it")


@contextmanager
def model_errors(count: int, device: torch.device) -> Iterator[None]:
    """Turn what a network raises on a batch of `count` into OutOfMemory, DeviceLost or RecognitionError."""
    try:
        yield
    except RuntimeError as exc:
        message = f"the model failed on a batch of {count}: {first_line(exc)}"
        if isinstance(exc, torch.OutOfMemoryError) or "can't allocate memory" in str(exc):
            if device.type == "cuda":
                torch.cuda.empty_cache()
            raise OutOfMemory(message) from exc
        kind = DeviceLost if isinstance(exc, torch.AcceleratorError) else RecognitionError
        raise kind(message) from exc


@contextmanager
def tf32(*, enabled: bool) -> Iterator[None]:
    """Let a GPU multiply float32 matrices in TF32 inside of the context.

    Tensor cores do that several times faster than in float32, with factors of 10 bits of mantissa, as many as float16
    has. torch keeps the setting for the whole process, so it is set around the calls that want it. No effect on a CPU.
    """
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = enabled or before
    try:
        yield
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
