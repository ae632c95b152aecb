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

LARGEST_WEIGHT = 127
LARGEST_IN_16_BITS = 200, 81  # of the pairs that fit, the one that was off by least: docs/decisions/0004-cpu-engine.md
SMALLEST = 1e-8  # the range of inputs that are all the same


def quantize(network: nn.Module) -> None:
    """Replace every linear layer, and every convolution of width one, by one in int8."""
    replace_linear(network, QuantizedLinear)


def quantize_decoder(prediction: Any, joint: Any) -> None:
    """Quantize the networks of the search. prediction: NeMo's modules of the prediction network; joint: its joint.

    The prediction network's weights have 8 bits. The joint's have 16: it decides about each token.
    """
    recurrent = prediction["dec_rnn"]
    gates = QuantizedLSTM.gates_of(prediction["embed"].weight, recurrent.lstm)
    prediction["embed"] = nn.Embedding(len(gates), gates.shape[1], _weight=gates)
    recurrent.lstm = QuantizedLSTM(recurrent.lstm)
    joint.pred = HalfLinear(joint.pred)
    joint.joint_net[-1] = HalfLinear(joint.joint_net[-1])


@cache
def saturates() -> bool:
    """Whether oneDNN's products in 8 bits saturate on this processor.

    Without VNNI's instructions it adds pairs of products in 16 bits, as `vpmaddubsw` does: 255 × 127 twice is more than
    fits. Asked of the kernel itself, for flags do not say which one oneDNN takes.
    """
    inputs, outputs, largest = 64, 8, 255
    weight = torch.full((outputs, inputs), LARGEST_WEIGHT, dtype=torch.int8)
    scales = torch.ones(outputs)
    codes = torch.full((1, inputs), largest, dtype=torch.uint8)
    found = _convolve(codes, 1.0, _reorder_to_convolve(weight, scales, 1.0), scales)
    return float(found.min()) != inputs * largest * LARGEST_WEIGHT


def largest_codes() -> tuple[int, int]:
    """Of an input and of a weight, on each side of zero: fewer where products saturate, so that none does."""
    return LARGEST_IN_16_BITS if saturates() else (255, LARGEST_WEIGHT)


class QuantizedLinear(nn.Module):
    """A linear layer over (…, inputs), float32. Each row of inputs has its own range: one loud frame costs no other.

    The lowest of a row is code 0: what comes out of an activation is hardly ever negative, and has all codes.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        super().__init__()
        largest, largest_weight = largest_codes()
        self._step = 1 / largest
        self._scales = _scales_of(weight, largest_weight)
        codes = (weight / self._scales[:, None]).round().to(torch.int8)
        self._sums = codes.sum(1) * self._scales
        self._weight = _reorder(codes, self._scales, self._step)
        self._bias = None if bias is None else bias.detach().clone()  # not where the file is mapped

    def forward(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """onto: what the result is added to, of its shape; it stays as it is."""
        rows = x.reshape(-1, x.shape[-1])
        lowest = rows.amin(1, keepdim=True)
        span = (rows.amax(1, keepdim=True) - lowest).clamp_min_(SMALLEST)
        # In two passes: torch's operations in one have no vector instructions where a factor is of a row.
        codes = _to_codes(rows.sub(lowest).mul_(1 / span), self._step)
        product = _product(codes, self._step, self._weight, self._scales).mul_(span)
        if onto is not None:
            product.add_(onto.reshape(product.shape))
        product.addcmul_(lowest, self._sums)
        if self._bias is not None:
            product.add_(self._bias)
        return product.reshape(*x.shape[:-1], len(self._scales))


class QuantizedLSTM(nn.Module):
    """An LSTM of tokens with weights of 8 bits, in FBGEMM's order. Its steps take their time for reading the weights.

    The first layer's product with a token's embedding is the same at each step: `gates_of` has it for all tokens, in
    float32. FBGEMM takes one range of inputs for all rows, so each row goes by itself.
    """

    def __init__(self, lstm: nn.LSTM) -> None:
        """lstm: of float32, over (steps, batch, features)."""
        super().__init__()
        self._layers = []
        for layer, (into, onward, before, after) in enumerate(lstm.all_weights):
            order = _gate_order(len(before))
            weight = torch.cat([into, onward], 1)[order] if layer else onward[order]
            bias = (before + after)[order] if layer else torch.zeros_like(before)
            self._layers.append(_prepack(weight.detach(), bias.detach()))
        self._size = lstm.hidden_size

    @staticmethod
    def is_possible() -> bool:
        """Whether torch has FBGEMM here, which is for x86 only."""
        return "fbgemm" in torch.backends.quantized.supported_engines

    @staticmethod
    def gates_of(embeddings: torch.Tensor, lstm: nn.LSTM) -> torch.Tensor:
        """What the first layer makes of embeddings, shape (…, features): this network's input, (…, 4 × hidden)."""
        into, _, before, after = lstm.all_weights[0]
        found: torch.Tensor = nn.functional.linear(embeddings, into, before + after)[..., _gate_order(len(before))]
        return found.detach()

    def forward(
        self, x: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor] | None = None
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, torch.Tensor]]:
        """x: of `gates_of`, shape (steps, batch, 4 × hidden). state: hidden and cells, each (layers, batch, hidden)."""
        if state is None:
            zeros = x.new_zeros(len(self._layers), x.shape[1], self._size)
            state = zeros, zeros
        hidden, cells = [], []
        for layer, (weight, output, cell) in enumerate(zip(self._layers, *state, strict=True)):
            outputs = []
            for step in x:
                if layer:
                    gates = _product_by_row(torch.cat([step, output], 1), weight)
                else:
                    gates = _product_by_row(output, weight).add_(step)
                enters, stays, leaves = gates[:, : 3 * self._size].sigmoid_().chunk(3, -1)
                cell = torch.addcmul(stays * cell, enters, gates[:, 3 * self._size :].tanh_())
                output = leaves * cell.tanh()
                outputs.append(output)
            x = torch.stack(outputs)
            hidden.append(output)
            cells.append(cell)
        return x, (torch.stack(hidden), torch.stack(cells))


class HalfLinear(nn.Module):
    """A linear layer with weights of 16 bits, in FBGEMM's order: single rows take no time but for reading them."""

    def __init__(self, plain: nn.Linear) -> None:
        super().__init__()
        self._weight = torch.ops.quantized.linear_prepack_fp16(plain.weight.detach(), plain.bias.detach())

    def forward(self, x: torch.Tensor) -> Any:
        return torch.ops.quantized.linear_dynamic_fp16(x, self._weight)


def _scales_of(weight: torch.Tensor, largest: int) -> torch.Tensor:
    """Of each output, with which its weights have codes up to `largest`."""
    return weight.abs().amax(1).clamp_min(SMALLEST) / largest


def _gate_order(count: int) -> torch.Tensor:
    """Torch's gates (in, forget, new, out) with the new cell's last."""
    entering, staying, new, leaving = torch.arange(count).chunk(4)
    return torch.cat([entering, staying, leaving, new])


def _prepack(weight: torch.Tensor, bias: torch.Tensor) -> Any:
    """Both in FBGEMM's order, with a scale for each output."""
    scales = _scales_of(weight, LARGEST_WEIGHT)
    zeros = torch.zeros(len(weight), dtype=torch.int64)
    codes = torch.quantize_per_channel(weight, scales.double(), zeros, 0, torch.qint8)
    return torch.ops.quantized.linear_prepack(codes, bias)


def _product_by_row(rows: torch.Tensor, weight: Any) -> torch.Tensor:
    found = [torch.ops.quantized.linear_dynamic(row, weight, True) for row in torch.split(rows, 1)]
    return found[0] if len(found) == 1 else torch.cat(found)


def _to_codes(rows: torch.Tensor, step: float) -> torch.Tensor:
    """Values from 0 to 1 as uint8. step: between two codes.

    torch's conversions to uint8 use no vector instructions and take four times as long as its quantization, whose
    result has the same bytes under a type that oneDNN's operator does not take.
    """
    quantized = torch.quantize_per_tensor(rows, step, 0, torch.quint8)
    codes = torch.empty(0, dtype=torch.uint8)
    return codes.set_(quantized.untyped_storage(), 0, quantized.shape, quantized.stride())


def _reorder(weight: torch.Tensor, scales: torch.Tensor, step: float) -> torch.Tensor:
    """Codes of weights, int8, shape (outputs, inputs), in oneDNN's own order. step: of the inputs."""
    if saturates():
        return _reorder_to_convolve(weight, scales, step)
    found: torch.Tensor = torch.ops.onednn.qlinear_prepack(weight, None)
    return found


def _product(codes: torch.Tensor, step: float, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    """The product in float32. codes: uint8, shape (rows, inputs). weight: of `_reorder`. scales: of the outputs."""
    if saturates():
        return _convolve(codes, step, weight, scales)
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    found: torch.Tensor = torch.ops.onednn.qlinear_pointwise(
        codes, step, 0, weight, scales, zeros, None, 1.0, 0, torch.float32, "none", [], ""
    )
    return found


# Without VNNI's instructions the product is asked of oneDNN as a convolution of width one over rows that lie as
# channels last: its product of matrices brings the weights into its order at each call there, and its convolution only
# once. With VNNI it is the other way round, and the convolution takes up to 80 times as long.
_SHAPE: tuple[list[int], list[int], list[int], int] = ([1, 1], [0, 0], [1, 1], 1)  # stride, padding, dilation, groups


def _reorder_to_convolve(weight: torch.Tensor, scales: torch.Tensor, step: float) -> torch.Tensor:
    found: torch.Tensor = torch.ops.onednn.qconv_prepack(weight[:, :, None, None], scales, step, 0, *_SHAPE)
    return found


def _convolve(codes: torch.Tensor, step: float, weight: torch.Tensor, scales: torch.Tensor) -> torch.Tensor:
    zeros = torch.zeros(len(scales), dtype=torch.int64)
    found: torch.Tensor = torch.ops.onednn.qconv_pointwise(
        codes[None, None].permute(0, 3, 1, 2), step, 0, weight, scales, zeros, None, *_SHAPE,
        1.0, 0, torch.float32, "none", [], "",
    )  # fmt: skip
    return found.permute(0, 2, 3, 1)[0, 0]
