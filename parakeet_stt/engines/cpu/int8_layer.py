"""NeMo's conformer layer for an encoder in int8: the same network with fewer passes over its memory.

The products of a layer take four fifths of its time in int8; what is between them is arranged here so that nothing is
permuted or copied. The positions' products do not depend on the audio and are kept. Float32 has NeMo's own layers.
docs/decisions/0004-cpu-engine.md has the figures.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn
from torch.nn import functional

from parakeet_stt.engines.cpu.attention import MASKED, weigh
from parakeet_stt.engines.cpu.int8 import QuantizedLinear, quantize
from parakeet_stt.engines.cpu.packing import pack


def quantize_encoder(encoder: Any) -> None:
    """Quantize a FastConformer encoder of NeMo's. Layers of another build keep their form, with linear layers in int8.

    What comes before the layers stays float32: of the arithmetic it is a fiftieth, and of the error in int8 a third. A
    layer of this form has no cache of NeMo's streaming, which nothing here uses.
    """
    pack(encoder.pre_encode)
    for number, layer in enumerate(encoder.layers):
        if _is_known(layer):
            encoder.layers[number] = QuantizedLayer(layer)
    quantize(encoder.layers)


def _is_known(layer: Any) -> bool:
    conv = layer.conv
    return bool(
        layer.self_attention_model == "rel_pos"
        and conv.norm_type == "batch_norm"
        and conv.pointwise_activation == "glu_"
        and conv.depthwise_conv._left_padding == conv.depthwise_conv._right_padding
        and not layer.is_adapter_available()
    )


class QuantizedLayer(nn.Module):
    """A layer over (batch, frames, features): half feed forward, attention, convolution, half feed forward, norm.

    Each part but the norm adds what it finds to its input.
    """

    def __init__(self, layer: Any) -> None:
        """layer: NeMo's, which it takes the norms of, and copies the other weights."""
        super().__init__()
        self._before = _FeedForward(layer.norm_feed_forward1, layer.feed_forward1, layer.fc_factor)
        self._attention = _Attention(layer.norm_self_att, layer.self_attn)
        self._convolution = _Convolution(layer.norm_conv, layer.conv)
        self._after = _FeedForward(layer.norm_feed_forward2, layer.feed_forward2, layer.fc_factor)
        self._norm = layer.norm_out

    def forward(
        self,
        x: torch.Tensor,
        att_mask: torch.Tensor,
        pos_emb: torch.Tensor,
        pad_mask: torch.Tensor,
        cache_last_channel: None = None,
        cache_last_time: None = None,
    ) -> torch.Tensor:
        """Called by NeMo, by these names. Masks are True for what is to be ignored, (batch, frames[, frames])."""
        x = self._before(x)
        x = self._attention(x, att_mask, pos_emb)
        x = self._convolution(x, pad_mask)
        found: torch.Tensor = self._norm(self._after(x))
        return found


class _FeedForward(nn.Module):
    def __init__(self, norm: nn.Module, plain: Any, factor: float) -> None:
        """factor: of the result."""
        super().__init__()
        self._norm = norm
        self._wide = _linear(plain.linear1)
        self._narrow = _linear(plain.linear2, factor)

    def forward(self, x: torch.Tensor) -> Any:
        return self._narrow(functional.silu(self._wide(self._norm(x)), inplace=True), onto=x)


class _Attention(nn.Module):
    """Attention with relative positions (arXiv:1901.02860, section 3.3)."""

    def __init__(self, norm: nn.Module, plain: Any) -> None:
        super().__init__()
        self._norm = norm
        self._heads: int = plain.h
        scale = 1 / plain.s_d_k  # of the scores; here of the queries, which are fewer
        parts = [(plain.linear_q, scale), (plain.linear_k, 1.0), (plain.linear_v, 1.0)]
        biases = [part.bias * factor for part, factor in parts if part.bias is not None]
        self._project = QuantizedLinear(
            torch.cat([part.weight.detach() * factor for part, factor in parts]), torch.cat(biases) if biases else None
        )
        self._content_bias = (plain.pos_bias_u.detach() * scale)[:, None]
        self._position_bias = (plain.pos_bias_v.detach() * scale)[:, None]
        self._project_positions = _linear(plain.linear_pos)
        self._positions = torch.empty(self._heads, plain.d_k, 0)
        self._out = _linear(plain.linear_out)

    def forward(self, x: torch.Tensor, mask: torch.Tensor, pos_emb: torch.Tensor) -> Any:
        projected = self._project(self._norm(x)).view(*x.shape[:2], 3, self._heads, -1).transpose(1, 3)
        positions = self._known_positions(pos_emb)
        masks = mask if mask.any() else [None] * len(x)
        # One by one: the scores of several would not stay in the processor's cache.
        found = [self._attend(item, positions, own) for item, own in zip(projected, masks, strict=True)]
        return self._out(torch.stack(found), onto=x)

    def _attend(self, projected: torch.Tensor, positions: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """One item's, shape (frames, features). projected: (heads, 3, frames, features of one)."""
        queries, keys, values = projected.unbind(1)
        frames, wide = queries.shape[1], positions.shape[2]
        by_position = torch.bmm(queries + self._position_bias, positions)
        # Row i, column j: the score of the distance i - j, which is column frames - 1 - i + j.
        scores = by_position.as_strided((self._heads, frames, frames), (frames * wide, wide - 1, 1), frames - 1)
        scores = torch.baddbmm(scores, queries + self._content_bias, keys.transpose(1, 2))
        if mask is not None:
            scores.masked_fill_(mask, MASKED)
        return weigh(scores, values).transpose(0, 1).flatten(1)

    def _known_positions(self, pos_emb: torch.Tensor) -> torch.Tensor:
        """The positions' projection, shape (heads, features of one, positions).

        Kept for the longest audio so far: 8 kB a frame at 0.6B. Shorter audio has the positions in the middle.
        """
        count = pos_emb.shape[1]
        if count > self._positions.shape[2]:
            projected = self._project_positions(pos_emb[0])
            self._positions = projected.view(count, self._heads, -1).permute(1, 2, 0).contiguous()
        start = (self._positions.shape[2] - count) // 2
        return self._positions[:, :, start : start + count]


class _Convolution(nn.Module):
    def __init__(self, norm: nn.Module, plain: Any) -> None:
        super().__init__()
        self._norm = norm
        self._widen = _pointwise(plain.pointwise_conv1)
        # The batch norm's statistics are fixed: it is a part of the weights.
        deep, statistics = plain.depthwise_conv, plain.batch_norm
        scale = statistics.weight / torch.sqrt(statistics.running_var + statistics.eps)
        bias = statistics.running_mean if deep.bias is None else statistics.running_mean - deep.bias
        self._weight = (deep.weight * scale[:, None, None])[:, :, None].detach()
        self._bias = (statistics.bias - bias * scale).detach()
        self._padding: int = deep._left_padding
        self._narrow = _pointwise(plain.pointwise_conv2)

    def forward(self, x: torch.Tensor, pad_mask: torch.Tensor) -> Any:
        gated = functional.glu(self._widen(self._norm(x)), -1)
        if pad_mask.any():
            gated.masked_fill_(pad_mask[..., None], 0.0)
        # As an image of height 1 with the channels last, which is how the frames lie.
        image = gated.transpose(1, 2)[:, :, None]
        image = functional.conv2d(image, self._weight, self._bias, padding=(0, self._padding), groups=len(self._bias))
        return self._narrow(functional.silu(image, inplace=True)[:, :, 0].transpose(1, 2), onto=x)


def _linear(plain: Any, factor: float = 1.0) -> QuantizedLinear:
    return QuantizedLinear(plain.weight.detach() * factor, None if plain.bias is None else plain.bias * factor)


def _pointwise(plain: Any) -> QuantizedLinear:
    return QuantizedLinear(plain.weight.detach()[:, :, 0], plain.bias)
