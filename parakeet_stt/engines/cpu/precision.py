"""Chooses between float32 and bfloat16 for a large network: a rule for each processor, not a race at each start.

What a processor gains is measured once and kept in a file, so that every later start chooses the same and gives the
same texts. The measurement takes processor time, not time, and takes both types in turn: other work on the machine
slows both down alike.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import torch
from platformdirs import user_cache_path

from parakeet_stt.engines.cpu.packing import PackedLinear, can_pack

logger = logging.getLogger(__name__)
LARGE = 100_000_000  # parameters; from here on, arithmetic takes most of the time
GAIN = 1.3  # by how much bfloat16 must be faster to be worth its rounding
FRAMES, FEATURES = 500, 1024  # of the measured product: 40 s of audio in one of Parakeet's layers
ROUNDS = 9


@dataclass(frozen=True, slots=True)
class Choice:
    """A type of the weights, and why it was chosen, for the operator."""

    dtype: torch.dtype
    reason: str


def choose(parameters: int) -> Choice:
    """The type for a network of so many parameters: bfloat16 if it is large, and the processor is faster by GAIN.

    Takes 0.3 s of one thread, once for each machine.

    Having the instructions for it says nothing: an AMD EPYC with avx512_bf16 is three times as fast with them, an Intel
    Xeon with avx512_bf16 and without AMX is slower than in float32.
    """
    processor = processor_name()
    if parameters < LARGE:
        return Choice(torch.float32, f"networks under {LARGE // 1_000_000} million parameters have it")
    if not can_pack(torch.bfloat16):
        return Choice(torch.float32, f"{processor} has no instructions for bfloat16")
    kept, machine = _file(), {"processor": processor, "torch": torch.__version__}
    gain = _read(kept, machine)
    if gain is None:
        gain = measure_gain()
        _write(kept, {**machine, "bfloat16_gain": gain})
    reason = f"bfloat16 was measured {gain:.2f} times as fast as float32 on {processor}; above {GAIN} it is used"
    return Choice(torch.bfloat16 if gain > GAIN else torch.float32, reason)


def measure_gain() -> float:
    """Processor time of a product in float32 by that in bfloat16, in one thread: the least of rounds taken in turn."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        with torch.inference_mode():
            products = [
                (
                    PackedLinear(torch.ones(4 * FEATURES, FEATURES, dtype=dtype), None),
                    torch.ones(FRAMES, FEATURES, dtype=dtype),
                )
                for dtype in (torch.float32, torch.bfloat16)
            ]
            seconds = [[_processor_seconds(*product) for product in products] for _ in range(ROUNDS)]
    finally:
        torch.set_num_threads(threads)
    full, half = (min(column) for column in zip(*seconds, strict=True))
    gain: float = round(full / half, 2)
    return gain


def processor_name() -> str:
    """The processor as the system names it; its architecture where the system has no name, as on ARM."""
    lines: list[str] = []
    with suppress(OSError):
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())


def _processor_seconds(layer: PackedLinear, audio: torch.Tensor) -> float:
    began = time.thread_time()
    layer(audio)
    return time.thread_time() - began


def _file() -> Path:
    return user_cache_path("parakeet-stt") / "precision.json"


def _read(file: Path, machine: dict[str, str]) -> float | None:
    """The gain that was measured on this machine, if it was."""
    with suppress(OSError, ValueError, KeyError, TypeError):
        known = json.loads(file.read_text())
        if {name: known[name] for name in machine} == machine:
            return float(known["bfloat16_gain"])
    return None


def _write(file: Path, known: dict[str, object]) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        own = file.with_suffix(f".{os.getpid()}")
        own.write_text(json.dumps(known) + "\n")
        own.replace(file)
    except OSError as exc:  # under a read-only root each start measures
        logger.info("what was measured can't be kept: %s", exc)
