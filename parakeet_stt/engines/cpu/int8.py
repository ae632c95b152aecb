"""Linear layers in int8: weights of 8 bits with a scale for each output, inputs quantized as they come; an LSTM beside.

Of an encoder of Parakeet's size nine tenths of the arithmetic are linear layers. What is between them stays float32.
docs/decisions/0004-cpu-engine.md has the figures, and the other ways that were measured.
"""

from __future__ import annotations

from functools import cache
from typing import Any

import torch
from torch import nn

from parakeet_stt.engines.cpu.packing import replace_linear

WEIGHT_LEVELS = 127  # on each side of zero
SMALLEST = 1e-8  # the range of inputs that are all the same


def quantize(network: nn.Module) -> None:
    """Replace every linear layer, and every convolution of width one, by one in int8."""
    replace_linear(network, QuantizedLinear)


@cache
def largest_code() -> int:
    """Of an input: 255, or 127 where this processor's products of 8 bits saturate.

    Without VNNI's instructions oneDNN adds pairs of products in 16 bits, as `vpmaddubsw` does: 255 × 127 twice is more
    than fits. Half of it can't overflow. Asked of the kernel itself, for flags do not say which one oneDNN takes.
    """
    inputs, outputs, largest = 64, 8, 255
    weight = torch.full((outputs, inputs), WEIGHT_LEVELS, dtype=torch.int8)
    scales = torch.ones(outputs)
    codes = torch.full((1, inputs), largest, dtype=torch.uint8)
    found = _product(codes, 1.0, _reorder(weight, scales, 1.0), scales)
    return largest if float(found.min()) == inputs * largest * WEIGHT_LEVELS else largest // 2


class QuantizedLinear(nn.Module):
    """A linear layer over (…, inputs), float32. Each row of inputs has its own range: one loud frame costs no other.

    The lowest of a row is code 0: what comes out of an activation is hardly ever negative, and has all codes.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        self._step = 1 / largest_code()
        self._scales = weight.abs().amax(1).clamp_min(SMALLEST) / WEIGHT_LEVELS
        codes = (weight / self._scales[:, None]).round().to(torch.int8)
        self._sums = codes.sum(1) * self._scales
        self._weight = _reorder(codes, self._scales, self._step)
        self._bias = None if bias is None else bias.detach().clone()  # not where the file is mapped

    def forward(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """onto: what the result is added to, of its shape; it stays as it is."""
        rows = x.reshape(-1, x.shape[-1])
        lowest = rows.amin(1, keepdim=True)
        span = (rows.amax(1, keepdim=True) - lowest).clamp_min_(SMALLEST)
        factor = 1 / span
        codes = _to_codes(torch.addcmul(-lowest * factor, rows, factor), self._step)
        product = _product(codes, self._step, self._weight, self._scales)
        if onto is None:
            product.mul_(span)
        else:
            torch.addcmul(onto.reshape(product.shape), product, span, out=product)
        product.addcmul_(lowest, self._sums)
        if self._bias is not None:
            product.add_(self._bias)
        return product.reshape(*x.shape[:-1], len(self._scales))


class HalfLSTM(nn.Module):
    """An LSTM with weights of 16 bits, in FBGEMM's order. Its steps have no time but for reading their weights.

    In 8 bits a step takes as long, for its inputs are quantized. lstm: of float32, over (steps, batch, features).
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        super().__init__()
        self._layers = [
            (_to_half(into, before + after), _to_half(onward, torch.zeros_like(after)))
            for into, onward, before, after in lstm.all_weights
        ]
        self._size = lstm.hidden_size

    @staticmethod
    def is_possible() -> bool:
        """Whether torch has FBGEMM here, which is for x86 only."""
        return "fbgemm" in torch.backends.quantized.supported_engines

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """x: shape (steps, batch, features). state: hidden and cells, each of shape (layers, batch, hidden)."""
        if state is None:
            zeros = x.new_zeros(len(self._layers), x.shape[1], self._size)
            state = zeros, zeros
        hidden, cells = [], []
        for (into, onward), output, cell in zip(self._layers, *state, strict=True):
            outputs = []
            for step in torch.ops.quantized.linear_dynamic_fp16(x, into):
                gates = torch.ops.quantized.linear_dynamic_fp16(output, onward).add_(step)
                enters, stays, leaves = gates[:, : 3 * self._size].sigmoid_().chunk(3, -1)
                cell = torch.addcmul(stays * cell, enters, gates[:, 3 * self._size :].tanh_())
                output = leaves * cell.tanh()
                outputs.append(output)
            x = torch.stack(outputs)
            hidden.append(output)
            cells.append(cell)
        return x, (torch.stack(hidden), torch.stack(cells))


def _to_half(weight: torch.Tensor, bias: torch.Tensor) -> Any:
    """Both in FBGEMM's order, of torch's gates (in, forget, new, out) with the new cell's last."""
    entering, staying, new, leaving = torch.arange(len(bias)).chunk(4)
    order = torch.cat([entering, staying, leaving, new])
    return torch.ops.quantized.linear_prepack_fp16(weight.detach()[order], bias.detach()[order])


def _to_codes(rows: torch.Tensor, step: float) -> torch.Tensor:
    """Values from 0 to 1 as uint8. step: between two codes.

    torch's conversions to uint8 use no vector instructions and take four times as long as its quantization, whose
    result has the same bytes under a type that oneDNN's operator does not take.
    """
    quantized = torch.quantize_per_tensor(rows, step, 0, torch.quint8)
    codes = torch.empty(0, dtype=torch.uint8)
    return codes.set_(quantized.untyped_storage(), 0, quantized.shape, quantized.stride())


# The product is asked of oneDNN as a convolution of width one over rows that lie as channels last. Without VNNI's
# instructions its product of matrices brings the weights into its order at each call, and its convolution only once.
_SHAPE: tuple[list[int], list[int], list[int], int] = ([1, 1], [0, 0], [1, 1], 1)  # stride, padding, dilation, groups


def _reorder(weight: torch.Tensor, scales: torch.Tensor, step: float) -> torch.Tensor:
    """Codes of weights, int8, shape (outputs, inputs), in oneDNN's own order. step: of the inputs."""
    found: torch.Tensor = torch.ops.onednn.qconv_prepack(weight[:, :, None, None], scales, step, 0, *_SHAPE)
    return found


def _product(codes: torch.Tensor, step: float, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The product in float32. codes: uint8, shape (rows, inputs). weight: of `_reorder`. scales: of the outputs."""
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    found: torch.Tensor = torch.ops.onednn.qconv_pointwise(
        codes[None, None].permute(0, 3, 1, 2), step, 0, weight, scales, zeros, None, *_SHAPE,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return found.permute(0, 2, 3, 1)[0, 0]
