"""The training loss against the sum over all paths, written out."""

from __future__ import annotations

import itertools
import math

import pytest
import torch

from scripts.train.tdt_loss import tdt_loss

DURATIONS = (0, 1, 2, 3, 4)


def every_path(tokens: torch.Tensor, spans: torch.Tensor, target: list[int], frames: int) -> float:
    """Sum of the probabilities of all ways to write `target`: tokens and spans are log-probabilities (T, U + 1, …)."""
    blank = tokens.shape[-1] - 1

    def rest(t: int, u: int) -> float:
        total = 0.0
        for index, duration in enumerate(DURATIONS):
            span = spans[t, u, index].item()
            if duration > 0 and t + duration == frames and u == len(target):
                total += math.exp(span + tokens[t, u, blank].item())
            elif duration > 0 and t + duration < frames:
                total += math.exp(span + tokens[t, u, blank].item()) * rest(t + duration, u)
            if u < len(target) and t + duration < frames:
                total += math.exp(span + tokens[t, u, target[u]].item()) * rest(t + duration, u + 1)
        return total

    return rest(0, 0)


@pytest.mark.parametrize(("frames", "labels", "seed"), list(itertools.product((1, 2, 4, 6), (0, 1, 3), (0, 1))))
def test_the_loss_is_the_sum_over_all_paths(frames: int, labels: int, seed: int) -> None:
    torch.manual_seed(seed)
    logits = torch.randn(1, frames, labels + 1, 4 + 1 + len(DURATIONS))
    target = torch.randint(0, 4, (1, labels))
    loss = tdt_loss(logits, target, torch.tensor([frames]), torch.tensor([labels]))
    tokens = torch.log_softmax(logits[0, ..., :5], -1)
    spans = torch.log_softmax(logits[0, ..., 5:], -1)
    expected = every_path(tokens, spans, target[0].tolist(), frames)
    assert math.exp(-loss.item()) == pytest.approx(expected, rel=1e-4, abs=1e-12)


def test_the_gradient_is_the_slope_of_the_loss() -> None:
    torch.manual_seed(3)
    logits = torch.randn(2, 5, 3, 5 + len(DURATIONS), requires_grad=True)
    target, frames, labels = torch.tensor([[1, 3], [2, 0]]), torch.tensor([5, 4]), torch.tensor([2, 1])
    tdt_loss(logits, target, frames, labels, sigma=0.02).sum().backward()
    assert logits.grad is not None
    step = 1e-2
    everywhere = list(itertools.product(range(2), range(5), range(3), range(10)))
    for index in everywhere[::7]:
        with torch.no_grad():
            up, down = logits.clone(), logits.clone()
            up[index] += step
            down[index] -= step
            slope = (
                tdt_loss(up, target, frames, labels, sigma=0.02).sum()
                - tdt_loss(down, target, frames, labels, sigma=0.02).sum()
            ) / (2 * step)
        assert logits.grad[index].item() == pytest.approx(slope.item(), abs=2e-3)


def test_padding_beyond_an_items_length_changes_nothing() -> None:
    torch.manual_seed(4)
    short = torch.randn(1, 4, 3, 10)
    padded = torch.nn.functional.pad(short, (0, 0, 0, 2, 0, 3), value=7.0)
    frames, labels = torch.tensor([4]), torch.tensor([2])
    alone = tdt_loss(short, torch.tensor([[1, 2]]), frames, labels)
    beside = tdt_loss(padded, torch.tensor([[1, 2, 0, 0]]), frames, labels)
    assert beside.item() == pytest.approx(alone.item(), rel=1e-6)
