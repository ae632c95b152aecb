"""Makes a network faster on a CPU, with the same results.

docs/decisions/0004-cpu-engine.md says what each measure gains, and what else was tried.
"""

from __future__ import annotations

import ctypes
import time
from statistics import median
from typing import Any

import torch
from torch import nn

LARGE = 100_000_000  # parameters; from here on, arithmetic takes most of the time
GAIN = 1.3  # by how much bfloat16 must be faster to be worth its rounding
TRIM_SECONDS = 2.0  # between two trims; more often, they begin to take time
FRAMES, FEATURES = 500, 1024  # of the measured product: 40 s of audio in one of Parakeet's layers


def is_bfloat16_faster() -> bool:
    """Whether this processor, with this thread's number of threads, multiplies faster in bfloat16. Takes 0.1 s.

    Having the instructions for it says nothing: an AMD EPYC with avx512_bf16 is three times as fast with them, an Intel
    Xeon with avx512_bf16 and without AMX is slower than in float32.
    """
    if not _packs(torch.bfloat16):
        return False
    seconds = {}
    with torch.inference_mode():
        for dtype in (torch.float32, torch.bfloat16):
            audio = torch.ones(FRAMES, FEATURES, dtype=dtype)
            layer = _Packed(torch.ones(4 * FEATURES, FEATURES, dtype=dtype), None)
            layer(audio)
            times = []
            for _ in range(3):
                began = time.perf_counter()
                layer(audio)
                times.append(time.perf_counter() - began)
            seconds[dtype] = median(times)
    return seconds[torch.float32] > GAIN * seconds[torch.bfloat16]


def _packs(dtype: torch.dtype) -> bool:
    """Whether oneDNN has an order of its own for weights of this type on this processor; it raises where not."""
    if not torch.backends.mkldnn.is_available():  # type: ignore[no-untyped-call]
        return False
    supported: bool = {
        torch.bfloat16: torch.ops.mkldnn._is_mkldnn_bf16_supported,
        torch.float16: torch.ops.mkldnn._is_mkldnn_fp16_supported,
    }.get(dtype, lambda: True)()
    return supported


def pack(network: nn.Module) -> None:
    """Bring the weights of every linear layer, and of every convolution of width one, into oneDNN's own order, once.

    torch does it at each call otherwise, which for a single utterance takes a quarter of the time. A network of a type
    that this processor has no instructions for stays as it is.
    """
    if not _packs(next(network.parameters()).dtype):
        return
    for name, layer in network.named_children():
        if isinstance(layer, nn.Linear):
            setattr(network, name, _Packed(layer.weight, layer.bias))
        elif isinstance(layer, nn.Conv1d) and layer.kernel_size == (1,) and layer.groups == 1:
            setattr(network, name, _PackedPointwise(layer))
        elif next(layer.parameters(), None) is not None:
            pack(layer)


class MemoryTrimmer:
    """Returns the allocator's free memory to the system now and then.

    Batches differ in shape, so memory freed after one seldom fits the next: glibc's heap grows by half a gigabyte in an
    hour of audio, most of it free (docs/benchmarks.md). Other C libraries have no `malloc_trim`.
    """

    def __init__(self) -> None:
        self._trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
        self._last = time.monotonic()

    def __call__(self) -> None:
        """Trim, unless the last trim was a moment ago."""
        if self._trim and time.monotonic() - self._last > TRIM_SECONDS:
            self._trim(0)
            self._last = time.monotonic()


class _Packed(nn.Module):
    """A linear layer, by the operators that torch's own compiler uses for weights that do not change."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight.detach(), None)
        self._bias = None if bias is None else bias.detach()

    def forward(self, x: torch.Tensor) -> Any:
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


class _PackedPointwise(nn.Module):
    """A convolution of width one over (batch, features, time)."""

    def __init__(self, layer: nn.Conv1d) -> None:
        super().__init__()
        self._linear = _Packed(layer.weight.squeeze(-1).contiguous(), layer.bias)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._linear(x.transpose(1, 2)).transpose(1, 2)
        return found


class SteppedLSTM(nn.Module):
    """An LSTM for single steps, of which oneDNN's would reorder all weights at each: half of the search's time.

    lstm: one that takes (steps, batch, features). Several steps at once go through it, and all steps in bfloat16,
    where it is as fast.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self._lstm = lstm

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        if len(x) != 1 or x.dtype != torch.float32 or state is None:
            found: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = self._lstm(x, state)
            return found
        output, hidden, cells = x[0], [], []
        for layer, weights in enumerate(self._lstm.all_weights):
            output, cell = torch.lstm_cell(output, (state[0][layer], state[1][layer]), *weights)
            hidden.append(output)
            cells.append(cell)
        return output[None], (torch.stack(hidden), torch.stack(cells))
