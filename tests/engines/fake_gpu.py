"""An engine whose tensors are on a GPU that is not there: torch's fake tensors have a shape and a device, and no data.

Whatever would make the host wait for a GPU fails on it: reading a number (torch raises for a tensor without data), and
a copy between host and device that is not asked for as non-blocking.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import numpy as np
import pytest
import torch
from nemo.collections.asr.parts.preprocessing import features
from nemo.collections.asr.parts.submodules.transducer_decoding.batched_hyps import BatchedHyps
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.cpu import attention, packing, subsampling
from parakeet_stt.engines.decoder_state import StateCache
from parakeet_stt.engines.gpu import layers
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.steps.transfer import Array, Padded
from parakeet_stt.text.phrases import Phrases

GPU = torch.device("cuda", 0)
CAPTURED = 16  # items of the widest batch that the fake search has seen: its results are as wide
WAITING = ("_local_scalar_dense", "item", "nonzero", "masked_select", "equal", "unique", "is_nonzero", "_unique2")


class Waited(AssertionError):
    """An operation that makes the host wait for the GPU."""


class NoWaiting(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Fails for each operation that waits for a GPU; counts the copies to the host."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.downloads = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        name = func.name().split("::")[1].split(".")[0]
        kwargs = kwargs or {}
        tensors = [one for one in args if isinstance(one, torch.Tensor)]
        if name in WAITING:
            raise Waited(func.name())
        if name == "_to_copy" and (target := kwargs.get("device")) is not None:
            self._check_copy(func.name(), tensors[0].device, torch.device(target), kwargs.get("non_blocking"))
        if name == "copy_":
            is_asynchronous = kwargs.get("non_blocking") or (len(args) > 2 and args[2])
            self._check_copy(func.name(), tensors[1].device, tensors[0].device, is_asynchronous)
        if name in ("index", "index_put", "index_put_"):
            self._check_index(func.name(), tensors[0], args[1])
        return func(*args, **kwargs)

    def _check_copy(self, name: str, source: torch.device, target: torch.device, is_asynchronous: object) -> None:
        if source.type == target.type:
            return
        if not is_asynchronous:
            raise Waited(f"{name} from {source} to {target}")
        self.downloads += target.type == "cpu"

    def _check_index(self, name: str, tensor: torch.Tensor, indices: Sequence[torch.Tensor | None]) -> None:
        for index in indices:
            if index is not None and (index.dtype == torch.bool or index.device.type != tensor.device.type):
                raise Waited(f"{name} by {index.dtype} on {index.device}")


class FakeUpload:
    """In place of `Upload`, whose streams need a driver: tensors of the same shapes and types."""

    def send(self, padded: Padded, arrays: Sequence[Array] = ()) -> list[torch.Tensor]:
        types = [getattr(torch, str(array.dtype)) for array in arrays]
        return [
            torch.empty(padded.items, padded.width, device=GPU),
            *(torch.empty(array.shape, dtype=dtype, device=GPU) for array, dtype in zip(arrays, types, strict=True)),
        ]


class FakeSearch:
    """In place of NeMo's search, which on a GPU is a replayed CUDA graph: results as wide as the widest batch."""

    def __init__(self, plain: Any) -> None:
        self._plain = plain
        self.biasing_multi_model = self

    def __call__(self, x: torch.Tensor, out_len: torch.Tensor, prev_batched_state: Any = None) -> tuple[Any, Any]:
        found = BatchedHyps(CAPTURED, 10 * x.shape[1], 0, device=x.device, float_dtype=x.dtype)
        state = self._get_batched_decoding_state_after_sos(x.device, CAPTURED)
        return found, state

    def get_init_states(self, batch_size: int, bos: bool) -> torch.Tensor:
        """As NeMo's model of many trees."""
        return torch.zeros(batch_size, dtype=torch.long, device=GPU)

    def _get_batched_decoding_state_after_sos(self, device: Any, batch_size: int) -> BatchedLabelLoopingState:
        found: BatchedLabelLoopingState = self._plain._get_batched_decoding_state_after_sos(device, batch_size)
        return found


class FakeBoosting:
    """In place of `Boosting`, all of whose trees are on the device already."""

    def __init__(self, search: FakeSearch) -> None:
        self.computer = search

    def build_trees(self, phrases: Sequence[Phrases]) -> Array:
        """As `Boosting`."""
        return np.array([0 if own else -1 for own in phrases])

    def search(self, encoded: torch.Tensor, frames: torch.Tensor, trees: torch.Tensor, before: Any) -> tuple[Any, Any]:
        """As `Boosting`."""
        assert trees.device == GPU
        found, state = self.computer(encoded, frames, before)
        state.fusion_states_list = [torch.zeros(CAPTURED, dtype=torch.long, device=GPU)]
        return found, state


def load(patch: pytest.MonkeyPatch) -> Parakeet:
    """The bundled model prepared as for a GPU: with its layers, without a CPU's weights, stepped LSTM and float32."""
    with patch.context() as only_here:
        only_here.setattr(attention, "use_steady_attention", layers.replace_layers)
        only_here.setattr(packing, "pack", lambda network: None)
        only_here.setattr(subsampling, "replace_subsampling", lambda pre_encode: None)
        only_here.setattr(packing, "SteppedLSTM", lambda lstm: lstm)
        engine = Parakeet(BUNDLED_FILE, device="cpu", precision="bfloat16")
    for part in (engine._model.decoder, engine._model.joint):
        part.to(torch.bfloat16)
    engine._encoder._search_dtype = torch.bfloat16
    return engine


@contextmanager
def on_gpu(engine: Parakeet, patch: pytest.MonkeyPatch) -> Iterator[NoWaiting]:
    """Move the engine to the fake GPU. Inside of the context, everything that waits for it raises `Waited`."""
    search = FakeSearch(engine._computer)
    with ExitStack() as stack:
        stack.enter_context(FakeTensorMode(allow_non_fake_inputs=True))
        for module in engine._model.modules():
            for own in (module._parameters, module._buffers):
                for name, tensor in own.items():
                    if tensor is not None:
                        fake = torch.empty(tensor.shape, dtype=tensor.dtype, device=GPU)
                        own[name] = torch.nn.Parameter(fake, requires_grad=False) if tensor.requires_grad else fake
        patch.setattr(torch, "inference_mode", torch.no_grad)  # in the former, composed operations arrive in one
        engine._scorer._durations = torch.empty(5, dtype=torch.long, device=GPU)
        patch.setattr(engine, "_device", GPU)
        patch.setattr(engine, "_waits", False)
        patch.setattr(engine, "_trimmer", None)
        patch.setattr(engine, "_upload", FakeUpload())
        patch.setattr(engine, "_search", search)
        patch.setattr(features, "normalize_batch", _wait)  # reads a number wherever there is a GPU
        patch.setattr(torch.cuda, "Event", lambda **_: FakeEvent())
        patch.setattr(torch.cuda, "current_stream", lambda *_: None)
        engine.__dict__["_states"] = StateCache(search, GPU, capacity=4)
        engine.__dict__["_boosting"] = FakeBoosting(search)
        watch = NoWaiting()
        stack.enter_context(watch)
        yield watch


class FakeEvent:
    """In place of `torch.cuda.Event`."""

    def record(self, stream: object) -> None:
        """Nothing to record."""


def _wait(*_: object) -> None:
    raise Waited("NeMo's normalize_batch")
