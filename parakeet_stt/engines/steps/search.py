"""NeMo's search on a GPU: one CUDA graph, whose memory nothing else may take."""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.tdt_label_looping import (
    GreedyBatchedTDTLabelLoopingComputer,
)


class GraphSearch(GreedyBatchedTDTLabelLoopingComputer):  # type: ignore[misc]
    """NeMo's label-looping search, 3.0.0, with a memory pool of its own for what its CUDA graph computes with.

    NeMo captures the bodies of its loops on streams that torch does not take for captured ones, so that their tensors
    lie in the memory that all share. `torch.cuda.empty_cache`, which the capture of another graph calls, gives that
    back to the driver, and the next replay fails with "an illegal memory access".
    """

    _memory: Any = None

    @classmethod
    def like(cls, plain: Any, **changes: Any) -> GraphSearch:
        """A search of the same model. plain: NeMo's. changes: of the arguments."""
        return cls(
            **{
                "decoder": plain.decoder,
                "joint": plain.joint,
                "blank_index": plain._blank_index,
                "durations": plain.durations.tolist(),
                "max_symbols_per_step": plain.max_symbols,
                "allow_cuda_graphs": plain.allow_cuda_graphs,
                **changes,
            }
        )

    def _graph_reinitialize(self, encoder_output_projected: torch.Tensor) -> None:
        """Capture for a batch that is larger than any before. Called by NeMo."""
        device, memory = encoder_output_projected.device, None
        with ExitStack() as stack:
            if device.type == "cuda":
                stack.enter_context(torch.cuda.device(device))
                memory = torch.cuda.MemPool()
                stack.enter_context(torch.cuda.use_mem_pool(memory))
            try:
                super()._graph_reinitialize(encoder_output_projected)
            except BaseException:  # out of memory: what is half made must not be used
                self.reset_cuda_graphs_state()
                raise
        self._memory = memory  # the graph before is gone, and with it the memory before
