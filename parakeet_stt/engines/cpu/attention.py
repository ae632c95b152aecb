"""Attention whose result does not depend on what shares the batch.

torch adds up a row of bfloat16, a long sum of products, and all of its own function for attention, in an order that
depends on the number of frames, also where the rest is masked. The difference is in the last digit, but the layers
after it round to 8 bits, in int8 and in bfloat16: an utterance's text would depend on the longest one in its batch.
"""

from __future__ import annotations

from types import MethodType
from typing import Any

import torch
from nemo.collections.asr.parts.submodules.multi_head_attention import INF_VAL, RelPositionMultiHeadAttention

MASKED = -INF_VAL  # score of a frame that is not looked at
FRAMES_AT_ONCE = 128  # of one sum of products: few enough for every kernel to add them up in one go


def use_steady_attention(encoder: Any) -> None:
    """Have the layers of a FastConformer encoder of NeMo's weigh their values by `weigh`."""
    for layer in encoder.modules():
        if type(layer) is RelPositionMultiHeadAttention:
            layer.use_pytorch_sdpa = False  # if a checkpoint says so: `forward_attention` would not be called
            layer.forward_attention = MethodType(_attend, layer)


def weigh(scores: torch.Tensor, values: torch.Tensor) -> torch.Tensor:
    """The means of values, weighted by the softmax of scores, shape (rows, frames, features), of the values' type.

    scores: (rows, frames, frames). values: (rows, frames, features).
    """
    weights = torch.softmax(scores, -1, dtype=torch.float32).to(values.dtype)
    found = torch.bmm(weights[:, :, :FRAMES_AT_ONCE], values[:, :FRAMES_AT_ONCE])
    for start in range(FRAMES_AT_ONCE, values.shape[1], FRAMES_AT_ONCE):
        some = slice(start, start + FRAMES_AT_ONCE)
        found.baddbmm_(weights[:, :, some], values[:, some])
    return found


def _attend(self: Any, value: torch.Tensor, scores: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
    """As NeMo's method. value: (items, heads, frames, features). scores: (items, heads, frames, frames).

    mask: True for what is to be ignored, (items, frames, frames). What a frame beyond an item's end finds is ignored.
    """
    if mask is not None:
        scores = scores.masked_fill(mask[:, None], MASKED)
    found = weigh(scores.flatten(0, 1), value.flatten(0, 1)).view(value.shape)
    projected: torch.Tensor = self.linear_out(found.transpose(1, 2).flatten(2))
    return projected
