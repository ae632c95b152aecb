"""NeMo's FastConformer layers with fewer passes over a GPU's memory, and in sizes that its tensor cores multiply fast.

Tensor cores want rows of 16 bytes: with an odd number of frames a product of matrices takes several times as long. NeMo
copies between (frames, features) and (features, frames) for each convolution, masks before each of nine layers, and
shifts the scores of relative positions by copying them. Results differ in the last digits.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from nemo.collections.asr.parts.submodules.conformer_modules import ConformerConvolution
from nemo.collections.asr.parts.submodules.multi_head_attention import INF_VAL, RelPositionMultiHeadAttention
from nemo.collections.asr.parts.submodules.subsampling import MaskedConvSequential
from torch import nn
from torch.nn import functional
from torch.nn.attention import SDPBackend, sdpa_kernel

FRAMES = 8  # encoder frames of 2 bytes in a row of 16; the number of frames should be a multiple
TAPS = 16  # of the first convolution: 9, one of ones for its bias, and zeros for a row of 16 bytes
# Not cuDNN's: it prepares for up to a second at each new size (docs/decisions/0017-cuda-graphs.md).
ATTENTION = [SDPBackend.EFFICIENT_ATTENTION, SDPBackend.MATH]


def replace_layers(encoder: Any) -> None:
    """Replace the layers of a FastConformer encoder of NeMo's. Those of another build keep their form.

    To be called while the weights are float32: batch normalization goes into the weights of the convolution before it.
    """
    for module in list(encoder.modules()):
        conv: Any = getattr(module, "conv", None)
        if type(module) is RelPositionMultiHeadAttention:
            module.forward = MethodType(_attend, module)
        elif type(conv) is ConformerConvolution and _is_plain(conv):
            module.conv = Convolution(conv)
        elif type(conv) is MaskedConvSequential and all(
            isinstance(layer, nn.ReLU) or _is_known(layer) for layer in conv
        ):
            module.conv = Subsampling(conv)


def _attend(
    self: Any,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    mask: torch.Tensor | None,
    pos_emb: torch.Tensor,
    cache: None = None,
) -> torch.Tensor:
    """As NeMo's `RelPositionMultiHeadAttention.forward` (arXiv:1901.02860, section 3.3), without a cache.

    query, key, value: the same, (items, frames, features). mask: True for what is to be ignored, (items, frames,
    frames). pos_emb: (1, 2 * frames - 1, features), from the last frame before to the last one after.
    """
    items, frames, _ = query.shape
    heads, features = self.h, self.d_k
    queries, keys, values = (
        linear(query).view(items, frames, heads, features) for linear in (self.linear_q, self.linear_k, self.linear_v)
    )
    # One more position, which nobody looks at, makes the number even.
    positions = self.linear_pos(functional.pad(pos_emb, (0, 0, 0, 1))).view(2 * frames, heads, features)
    by_position = torch.baddbmm(
        query.new_empty(1, 1, 1),  # times 0
        (queries + self.pos_bias_v).view(items * frames, heads, features).transpose(0, 1),
        positions.permute(1, 2, 0),
        beta=0,
        alpha=1 / self.s_d_k,
    )
    # Frame i sees frame j at position j - i, counted from the middle: one further to the left in each row.
    row = 2 * frames
    bias = by_position.as_strided(
        (items, heads, frames, frames), (frames * row, items * frames * row, row - 1, 1), frames - 1
    )
    if mask is None:
        bias = bias.contiguous()
    else:
        hidden = mask[:, None].to(bias.dtype) * -INF_VAL  # which float16 has
        bias = torch.add(bias, hidden, out=bias.new_empty(bias.shape))
    found = functional.scaled_dot_product_attention(
        (queries + self.pos_bias_u).transpose(1, 2), keys.transpose(1, 2), values.transpose(1, 2), attn_mask=bias
    )
    projected: torch.Tensor = self.linear_out(found.transpose(1, 2).reshape(query.shape))
    return projected


def fused_attention() -> Any:
    """The context that the encoder runs in."""
    return sdpa_kernel(ATTENTION)


def _is_plain(conv: Any) -> bool:
    """Whether a convolution of NeMo's is one that `Convolution` computes."""
    spread = conv.depthwise_conv
    return bool(
        conv.pointwise_activation == "glu_"
        and isinstance(conv.batch_norm, nn.BatchNorm1d)
        and spread._left_padding == spread._right_padding
        and isinstance(conv.activation, nn.SiLU)
    )


def _is_known(layer: nn.Module) -> bool:
    """Whether a layer is one that `Subsampling` computes: from one channel, of each channel, or of width one."""
    if type(layer) is not nn.Conv2d:
        return False
    if layer.kernel_size == (1, 1):
        return layer.stride == (1, 1) and layer.groups == 1
    shape = (layer.kernel_size, layer.padding, layer.stride[0] == layer.stride[1])
    return shape == ((3, 3), (1, 1), True) and layer.in_channels in (1, layer.groups)


class Convolution(nn.Module):
    """The convolution of a FastConformer layer, over (items, frames, features) throughout."""

    def __init__(self, plain: Any) -> None:
        """plain: NeMo's, in float32."""
        super().__init__()
        self._widen, self._project = _to_linear(plain.pointwise_conv1), _to_linear(plain.pointwise_conv2)
        spread, norm = plain.depthwise_conv, plain.batch_norm
        self._padding = spread._left_padding
        scale = norm.weight.detach() / torch.sqrt(norm.running_var + norm.eps)
        before = 0.0 if spread.bias is None else spread.bias.detach()
        self.weight = nn.Parameter(spread.weight.detach() * scale[:, None, None], requires_grad=False)
        self.bias = nn.Parameter(norm.bias.detach() + (before - norm.running_mean) * scale, requires_grad=False)

    def forward(self, x: torch.Tensor, pad_mask: torch.Tensor | None = None, cache: None = None) -> torch.Tensor:
        """x: (items, frames, features). pad_mask: True for what is not an item's, (items, frames)."""
        x = functional.glu(self._widen(x), -1)
        if pad_mask is not None:
            x = x.masked_fill_(pad_mask[..., None], 0.0)
        x = functional.conv1d(x.transpose(1, 2), self.weight, self.bias, padding=self._padding, groups=x.shape[2])
        projected: torch.Tensor = self._project(functional.silu(x, inplace=True).transpose(1, 2))
        return projected


def _to_linear(plain: Any) -> nn.Linear:
    """A convolution of width one as a linear layer."""
    linear = nn.Linear(plain.in_channels, plain.out_channels, device="meta")
    linear.weight, linear.bias = nn.Parameter(plain.weight.detach().flatten(1), requires_grad=False), plain.bias
    return linear


class Subsampling(nn.Module):
    """The convolutions before the layers, over (items, frames, features), whose items have a length each.

    Those that go over all channels are products of matrices: cuDNN looks for a way at each new size, for longer than
    the whole encoder takes.
    """

    def __init__(self, plain: Any) -> None:
        """plain: NeMo's, whose layers are taken."""
        super().__init__()
        self._layers = nn.ModuleList(plain)

    def forward(self, x: torch.Tensor, lengths: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Shape (items, channels, frames, features), and the lengths. lengths: in frames; x is 0 beyond them."""
        x, lengths = x[:, None], lengths.long()
        for layer in self._layers:
            if isinstance(layer, nn.ReLU):
                x = x.relu_()
                continue
            assert isinstance(layer, nn.Conv2d)
            if layer.in_channels == 1:
                x = _convolve_features(layer, x[:, 0])
            elif layer.kernel_size == (1, 1):
                x = _mix_channels(layer, x)
            else:
                _blank_next(x, lengths)
                x = layer(x)
            size, stride, padding = layer.kernel_size[0], layer.stride[0], int(layer.padding[0])
            lengths = torch.div(lengths + 2 * padding - size, stride, rounding_mode="floor") + 1
        return x, lengths


def _convolve_features(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution from one channel, of width three. x: (items, frames, features)."""
    count, (stride, _) = len(x), layer.stride
    padded = functional.pad(x, (1, 1, 1, 1))
    frames, features = ((size - 3) // stride + 1 for size in padded.shape[1:])
    row = padded.shape[2]
    seen = padded.as_strided(
        (count, 3, 3, frames, features), (padded.shape[1] * row, row, 1, stride * row, stride)
    ).reshape(count, 9, -1)
    ones = functional.pad(seen.new_ones(1, 1, 1), (0, 0, 0, TAPS - 10)).expand(count, -1, seen.shape[2])
    bias = layer.weight.new_zeros(layer.out_channels) if layer.bias is None else layer.bias
    weight = functional.pad(torch.cat([layer.weight.flatten(1), bias[:, None]], 1), (0, TAPS - 10))
    found = torch.bmm(weight.expand(count, -1, -1), torch.cat([seen, ones], 1))
    return found.view(count, -1, frames, features)


def _mix_channels(layer: nn.Conv2d, x: torch.Tensor) -> torch.Tensor:
    """A convolution of width one. x: (items, channels, frames, features)."""
    weight, rows = layer.weight.flatten(1).expand(len(x), -1, -1), x.flatten(2)
    found = torch.bmm(weight, rows) if layer.bias is None else torch.baddbmm(layer.bias[:, None], weight, rows)
    return found.view(len(x), -1, *x.shape[2:])


def _blank_next(x: torch.Tensor, lengths: torch.Tensor) -> None:
    """Zeros in the frame after each item's end: of those beyond, a convolution of width three looks at no other."""
    frames = x.shape[2]
    items, last = torch.arange(len(x), device=x.device), lengths.clamp(max=frames - 1)
    x[items, :, last] *= (lengths >= frames)[:, None, None].to(x.dtype)
