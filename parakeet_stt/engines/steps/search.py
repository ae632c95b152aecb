"""NeMo's search on a GPU: one CUDA graph with loops inside; and what of NeMo 3.0.0 has to be mended for it."""

from __future__ import annotations

from typing import Any

import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.tdt_label_looping import (
    GreedyBatchedTDTLabelLoopingComputer,
)
from nemo.core.utils import cuda_python_utils

from parakeet_stt.engines.steps.graphs import kept_memory


class _Compiler:
    """NVIDIA's run-time compiler, whose logs are never of one byte.

    NeMo has it write the log of a kernel into `b" " * size`. An empty log has one byte, a zero, and Python has only one
    object for each string of one byte. So where Python compiles NeMo's files at each start, as in an image that can't
    be written to, every `b" "` of the process became `b"\\0"`: no second checkpoint could be loaded, for example.
    """

    def __init__(self, plain: Any) -> None:
        """plain: the module `cuda.bindings.nvrtc`."""
        self._plain = plain

    def __getattr__(self, name: str) -> Any:
        return getattr(self._plain, name)

    def nvrtcGetProgramLogSize(self, program: Any) -> tuple[Any, int]:  # noqa: N802 (NVIDIA's name)
        """One byte more than there are."""
        error, size = self._plain.nvrtcGetProgramLogSize(program)
        return error, size + 1


if cuda_python_utils.CUDA_PYTHON_AVAILABLE:
    cuda_python_utils.nvrtc = _Compiler(cuda_python_utils.nvrtc)


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
        with kept_memory(encoder_output_projected.device) as memory:
            try:
                super()._graph_reinitialize(encoder_output_projected)
            except BaseException:  # out of memory: what is half made must not be used
                self.reset_cuda_graphs_state()
                raise
        self._memory = memory  # the graph before is gone, and with it the memory before
