"""Brings the weights of a network into the order that a CPU's kernels read, once, with the same results."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn

MakeLinear = Callable[[torch.Tensor, torch.Tensor | None], nn.Module]


def can_pack(dtype: torch.dtype) -> bool:
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
    if can_pack(next(network.parameters()).dtype):
        replace_linear(network, PackedLinear)


def replace_linear(network: nn.Module, make: MakeLinear) -> None:
    """Replace every linear layer, and every convolution of width one, by what `make` makes of its weight and bias.

    The weight has the shape (outputs, inputs).
    """
    for name, layer in network.named_children():
        if isinstance(layer, nn.Linear):
            setattr(network, name, make(layer.weight.detach(), layer.bias))
        elif isinstance(layer, nn.Conv1d | nn.Conv2d) and set(layer.kernel_size) == {1} and layer.groups == 1:
            linear = make(layer.weight.detach().flatten(1).contiguous(), layer.bias)
            setattr(network, name, Pointwise(linear))
        elif next(layer.parameters(), None) is not None:
            replace_linear(layer, make)


class PackedLinear(nn.Module):
    """A linear layer, by the operators that torch's own compiler uses for weights that do not change."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._weight = torch.ops.mkldnn._reorder_linear_weight(weight, None)
        self._bias = None if bias is None else bias.detach().clone()  # not where the file is mapped

    def forward(self, x: torch.Tensor) -> Any:
        return torch.ops.mkldnn._linear_pointwise(x, self._weight, self._bias, "none", [], "")


class Pointwise(nn.Module):
    """A convolution of width one over (batch, features, …), as a linear layer over (batch, …, features)."""

    def __init__(self, linear: nn.Module) -> None:
        super().__init__()
        self._linear = linear

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self._linear(x.movedim(1, -1)).movedim(-1, 1)
        return found


class SteppedLSTM(nn.Module):
    """An LSTM for single steps, of which oneDNN's would reorder all weights at each: half of the search's time.

    lstm: one of float32 that takes (steps, batch, features). Several steps at once go through it.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self._lstm = lstm

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        if len(x) != 1 or state is None:
            found: tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]] = self._lstm(x, state)
            return found
        output, hidden, cells = x[0], [], []
        for layer, weights in enumerate(self._lstm.all_weights):
            output, cell = torch.lstm_cell(output, (state[0][layer], state[1][layer]), *weights)
            hidden.append(output)
            cells.append(cell)
        return output[None], (torch.stack(hidden), torch.stack(cells))
