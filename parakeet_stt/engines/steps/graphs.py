"""CUDA graphs: what they compute with stays where it was when they were captured."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch

Tensors = tuple[torch.Tensor, ...]


@contextmanager
def kept_memory(device: torch.device) -> Iterator[Any]:
    """All that this thread allocates on a GPU meanwhile lies in a pool, which is given.

    Whoever keeps the pool keeps its memory: nothing else gets it, and `torch.cuda.empty_cache`, which every capture
    calls, does not give it back to the driver. On a CPU None is given, and nothing done.
    """
    if device.type == "cpu":
        yield None
        return
    memory = torch.cuda.MemPool()
    with torch.cuda.use_mem_pool(memory):
        yield memory


def capture(work: Callable[[], Tensors]) -> Callable[[], Tensors]:
    """Capture `work` as a CUDA graph. Returns what replays it and gives its outputs, the same tensors each time.

    Inside of `kept_memory`.
    """
    work()  # libraries prepare what they need for the shape, which can't be captured
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph, capture_error_mode="thread_local"):
        outputs = work()

    def replay() -> Tensors:
        graph.replay()
        return outputs

    return replay
