"""NeMo's convolutions before the encoder's layers, with fewer passes over their memory.

Results differ in the last digit, if at all. NeMo multiplies all channels by a mask before each of eight layers, and
copies them between two orders for each convolution of width one. A frame beyond an item's end matters only where a
layer looks at its neighbours.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from parakeet_stt.engines.cpu.packing import Pointwise, can_pack


def replace_subsampling(pre_encode: Any) -> None:
    """Replace the convolutions of NeMo's `ConvSubsampling` by these. Those of another build keep their form.

    Expects its convolutions of width one replaced already (`packing.replace_linear`).
    """
    plain: Any = getattr(pre_encode, "conv", None)
    if type(plain).__name__ == "MaskedConvSequential" and all(
        isinstance(layer, nn.ReLU | Pointwise) or type(layer) is nn.Conv2d for layer in plain
    ):
        pre_encode.conv = Subsampling(plain)


class Subsampling(nn.Module):
    """Convolutions over (batch, frames, features), whose items have a length each."""

    def __init__(self, plain: Any) -> None:
        """plain: NeMo's, whose layers are taken."""
        super().__init__()
        self._layers = nn.ModuleList(plain)
        self._has_onednn = can_pack(plain[0].weight.dtype)
        for layer in plain:
            if isinstance(layer, nn.Conv2d):
                layer.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shape (batch, channels, frames, features), and the lengths. lengths: in frames."""
        x, counts = x[:, None].clone(), lengths.tolist()
        for layer in self._layers:
            if isinstance(layer, nn.Conv2d):
                _blank(x, counts)
                size, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
                counts = [(count + 2 * padding - size) // stride + 1 for count in counts]
            x = self._convolve(layer, x) if isinstance(layer, nn.Conv2d) else layer(x)
        _blank(x, counts)
        return x, torch.tensor(counts)

    def _convolve(self, layer: Any, x: torch.Tensor) -> Any:
        """By oneDNN whatever the size. torch takes another way for one short item, with other last digits."""
        if not self._has_onednn:
            return layer(x)
        return torch.mkldnn_convolution(
            x, layer.weight, layer.bias, layer.padding, layer.stride, layer.dilation, layer.groups
        )


def _blank(x: torch.Tensor, counts: list[int]) -> None:
    """Zeros beyond each item's count of frames."""
    for item, count in zip(x, counts, strict=True):
        item[:, count:] = 0.0
