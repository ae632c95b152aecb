"""Computes the loss of a token-and-duration transducer, and its gradients, on a CPU.

Source: Xu et al., "Efficient Sequence Transduction by Jointly Predicting Tokens and Durations" (arXiv 2304.06795),
with its logit under-normalization sigma. NeMo's own TDT loss needs CUDA.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numba
import numpy as np
import numpy.typing as npt
import torch

IMPOSSIBLE = -1e30
Array = npt.NDArray[np.float64]


@numba.njit(inline="always")  # type: ignore[untyped-decorator]
def _log_add(a: float, b: float) -> float:
    if a < b:
        a, b = b, a
    return a if b <= -1e29 else a + math.log1p(math.exp(b - a))


@numba.njit(parallel=True, cache=True)  # type: ignore[untyped-decorator]
def _forward_backward(  # ten parameters: compiled by numba, which is simplest with plain arrays
    blank: Array, label: Array, duration: Array, frames: Any, labels: Any, durations: Any,
    likelihood: Array, blank_grad: Array, label_grad: Array, duration_grad: Array,
) -> None:  # fmt: skip
    """Fill `likelihood` with ln p(labels) of each item, and the gradients of its sum.

    A path is at frame t having written u labels. A label with duration d goes to (t + d, u + 1), which must lie before
    the end; a blank, whose duration is never 0, goes to (t + d, u); the last step is a blank that ends exactly at T.
    """
    for item in numba.prange(blank.shape[0]):
        t_end, u_end = frames[item], labels[item]
        alpha = np.full((t_end, u_end + 1), IMPOSSIBLE)
        beta = np.full((t_end, u_end + 1), IMPOSSIBLE)
        alpha[0, 0] = 0.0
        for t in range(t_end):
            for u in range(u_end + 1):
                if alpha[t, u] <= -1e29:
                    continue
                for index in range(durations.shape[0]):
                    after = t + durations[index]
                    step = alpha[t, u] + duration[item, t, u, index]
                    if after < t_end:
                        if after > t:
                            alpha[after, u] = _log_add(alpha[after, u], step + blank[item, t, u])
                        if u < u_end:
                            alpha[after, u + 1] = _log_add(alpha[after, u + 1], step + label[item, t, u])
        for t in range(t_end - 1, -1, -1):
            for u in range(u_end, -1, -1):
                total = IMPOSSIBLE
                for index in range(durations.shape[0]):
                    after = t + durations[index]
                    step = duration[item, t, u, index]
                    if after > t:
                        if after < t_end:
                            total = _log_add(total, step + blank[item, t, u] + beta[after, u])
                        elif after == t_end and u == u_end:
                            total = _log_add(total, step + blank[item, t, u])
                    if after < t_end and u < u_end:
                        total = _log_add(total, step + label[item, t, u] + beta[after, u + 1])
                beta[t, u] = total
        likelihood[item] = beta[0, 0]
        for t in range(t_end):
            for u in range(u_end + 1):
                if alpha[t, u] <= -1e29:
                    continue
                for index in range(durations.shape[0]):
                    after = t + durations[index]
                    step = alpha[t, u] + duration[item, t, u, index] - beta[0, 0]
                    if after > t:
                        rest = IMPOSSIBLE
                        if after < t_end:
                            rest = beta[after, u]
                        elif after == t_end and u == u_end:
                            rest = 0.0
                        if rest > -1e29:
                            share = math.exp(step + blank[item, t, u] + rest)
                            blank_grad[item, t, u] += share
                            duration_grad[item, t, u, index] += share
                    if after < t_end and u < u_end and beta[after, u + 1] > -1e29:
                        share = math.exp(step + label[item, t, u] + beta[after, u + 1])
                        label_grad[item, t, u] += share
                        duration_grad[item, t, u, index] += share


class _LogLikelihood(torch.autograd.Function):
    @staticmethod
    def forward(  # type: ignore[override] # seven parameters: torch gives gradients to each argument on its own
        ctx: Any, blank: torch.Tensor, label: torch.Tensor, duration: torch.Tensor, frames: torch.Tensor,
        labels: torch.Tensor, durations: Sequence[int],
    ) -> torch.Tensor:  # fmt: skip
        inputs = [tensor.detach().double().numpy() for tensor in (blank, label, duration)]
        likelihood = np.zeros(len(blank))
        gradients = [np.zeros(array.shape) for array in inputs]
        _forward_backward(
            *inputs, frames.numpy(), labels.numpy(), np.array(durations, np.int64), likelihood, *gradients
        )
        ctx.save_for_backward(*(torch.from_numpy(gradient).float() for gradient in gradients))
        return torch.from_numpy(likelihood).float()

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> Any:  # type: ignore[override]
        blank, label, duration = ctx.saved_tensors
        one, two = grad[:, None, None], grad[:, None, None, None]
        return one * blank, one * label, two * duration, None, None, None


def tdt_loss(
    logits: torch.Tensor,
    targets: torch.Tensor,
    frames: torch.Tensor,
    labels: torch.Tensor,
    *,
    durations: Sequence[int] = (0, 1, 2, 3, 4),
    sigma: float = 0.0,
) -> torch.Tensor:
    """-ln p(targets) of each item, shape (items,).

    logits: (items, T, U + 1, V + 1 + len(durations)), the joint network's raw output; blank is index V.
    targets: (items, U) int64, padded with anything; frames, labels: (items,) int64, the true lengths.
    sigma: subtracted from every token's log-probability, so that long durations are favoured.
    """
    tokens = torch.log_softmax(logits[..., : -len(durations)], -1) - sigma
    spans = torch.log_softmax(logits[..., -len(durations) :], -1)
    index = targets[:, None, :, None].expand(-1, tokens.shape[1], -1, 1)
    label = torch.gather(tokens[:, :, :-1], 3, index).squeeze(-1)
    likelihood: torch.Tensor = _LogLikelihood.apply(tokens[..., -1], label, spans, frames, labels, durations)
    return -likelihood
