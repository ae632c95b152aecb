"""How much arithmetic the encoder is, and how fast the device multiplies matrices of its sizes.

The encoder is FastConformer (arXiv:2305.05084, section 3; sizes from the model's configuration). A multiplication with
its addition counts as two operations. The search's arithmetic is left out: it is under 1 % of the encoder's.
"""

from __future__ import annotations

import os
import platform
import tarfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from parakeet_stt.engines.cpu.precision import processor_name
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS
from scripts.bench.gpu.plan import Setup

MATRIX_ROWS = 19_200  # frames of 64 clips of 24 s
SHORT_ROWS = 256
PRECISIONS = ("bfloat16", "float16", "float32")


@dataclass(frozen=True, slots=True)
class Sizes:
    """Of an encoder. width: features of a frame. expansion: of the feed-forward layers. kernel: of the convolutions."""

    features: int
    width: int
    layers: int
    expansion: int
    kernel: int
    channels: int

    @classmethod
    def of(cls, model: Path) -> Sizes:
        """model: a .nemo file, of which only the configuration is read."""
        with tarfile.open(model) as archive:
            (content,) = [archive.extractfile(one) for one in archive if one.name.endswith("model_config.yaml")]
            assert content is not None  # a regular file
            config: Any = OmegaConf.create(content.read().decode()).encoder
        return cls(config.feat_in, config.d_model, config.n_layers, config.ff_expansion_factor,
                   config.conv_kernel_size, config.subsampling_conv_channels)  # fmt: skip


def encoder_operations(sizes: Sizes, seconds: float) -> float:
    """Operations for one utterance of so many seconds, without padding."""
    frames, width = seconds / ENCODER_FRAME_SECONDS, sizes.width
    feed_forward = 2 * 2 * 2 * sizes.expansion * width**2  # two modules of two layers
    projections = 4 * 2 * width**2  # query, key, value, output; that of the positions is shared by the batch
    attention = 2 * width * frames * (1 + 2 + 1)  # with keys, with twice as many positions, with values
    convolution = (2 * 2 + 2) * width**2 + 2 * sizes.kernel * width  # pointwise to twice the width, back; depthwise
    layer = frames * (feed_forward + projections + attention + convolution)
    return sizes.layers * layer + _subsampling_operations(sizes, frames)


def _subsampling_operations(sizes: Sizes, frames: float) -> float:
    """Three convolutions of 3 × 3 that halve time and frequency each, the last two depthwise and then pointwise."""
    cells = [frames * 4 * sizes.features / 2, frames * 2 * sizes.features / 4, frames * sizes.features / 8]
    channels = sizes.channels
    first = cells[0] * 2 * 9 * channels
    following = sum(cells[1:]) * (2 * 9 * channels + 2 * channels**2)
    return first + following + frames * 2 * channels * (sizes.features / 8) * sizes.width


def layer_products(sizes: Sizes) -> dict[str, tuple[int, int, int]]:
    """The matrix products of one layer: inputs, outputs, how many of them."""
    width = sizes.width
    return {
        "feed-forward, up": (width, sizes.expansion * width, 2),
        "feed-forward, down": (sizes.expansion * width, width, 2),
        "attention and pointwise": (width, width, 5),
        "gated pointwise": (width, 2 * width, 1),
    }


def measure_rate(sizes: Sizes, device: str, precision: str, rows: int, seconds: float) -> dict[str, float]:
    """Operations a second of each product, and as `layer` of all products of a layer in their proportion.

    precision: float32 on a GPU means TF32.
    """
    dtype = getattr(torch, precision)
    times, operations, found = 0.0, 0.0, {}
    before = torch.backends.cuda.matmul.allow_tf32
    torch.backends.cuda.matmul.allow_tf32 = True
    try:
        for name, (inputs, outputs, count) in layer_products(sizes).items():
            x = torch.randn(rows, inputs, device=device, dtype=dtype)
            weight = torch.randn(outputs, inputs, device=device, dtype=dtype)
            taken = seconds_of(lambda x=x, weight=weight: torch.nn.functional.linear(x, weight), device, seconds / 4)  # type: ignore[misc]
            own = 2.0 * rows * inputs * outputs
            found[name] = own / taken
            times, operations = times + count * taken, operations + count * own
    finally:
        torch.backends.cuda.matmul.allow_tf32 = before
    return {**found, "layer": operations / times}


def seconds_of(work: Callable[[], object], device: str, budget: float) -> float:
    """Mean seconds of one call, over as many calls as fit into the budget, queued one after another."""
    work()
    wait(device)
    began = time.perf_counter()
    work()
    wait(device)
    once = time.perf_counter() - began
    calls = max(1, min(1000, int(budget / max(once, 1e-6))))
    began = time.perf_counter()
    for _ in range(calls):
        work()
    wait(device)
    return (time.perf_counter() - began) / calls


def wait(device: str) -> None:
    """Until a GPU has done all that is queued."""
    if device != "cpu":
        torch.cuda.synchronize()


def describe_machine(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `machine`: what the figures are measured on. Fails if torch sees no GPU."""
    return {
        "processor": torch.cuda.get_device_name() if setup.is_gpu else processor_name(),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "cuda": torch.version.cuda,
        "python": platform.python_version(),
        "memory_gb": round(torch.cuda.mem_get_info()[1] / 1e9, 1) if setup.is_gpu else None,
    }


def measure_matrices(setup: Setup, seconds: float) -> dict[str, Any]:
    """The part `matrix`: rates in TFLOP/s by precision, and the encoder's GFLOP for a second of audio."""
    sizes = Sizes.of(setup.model)
    rows = SHORT_ROWS if setup.short or not setup.is_gpu else MATRIX_ROWS
    precisions = ("float32",) if setup.short else PRECISIONS
    rates = {}
    for precision in precisions:
        own = measure_rate(
            sizes, setup.device, precision, rows, 0.1 if setup.short else min(2.0, seconds / 4 / len(precisions))
        )
        rates[precision] = {name: round(rate / 1e12, 4) for name, rate in own.items()}
    return {
        "rows": rows,
        "tflops": rates,
        "gflop_per_second_of_audio": {
            clip: round(encoder_operations(sizes, clip) / clip / 1e9, 4) for clip in (10, 24)
        },
    }
