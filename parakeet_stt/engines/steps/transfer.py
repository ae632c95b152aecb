"""Copies between the host and the device that run beside the computation.

A batch goes to the device in one copy and its results come back in one. Both use pinned memory, since the driver makes
the host wait for every other copy. On a CPU the same code copies once within the host's memory.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
import torch

from parakeet_stt.audio import Samples

Array = npt.NDArray[Any]
T = TypeVar("T")

SLOTS = 3  # host buffers in rotation: one is filled while the copies of two launched batches may not be over
ALIGNMENT = 64  # bytes; more than any type needs
_TYPES = {
    np.dtype(np.float32): torch.float32,
    np.dtype(np.float16): torch.float16,
    np.dtype(np.int16): torch.int16,
    np.dtype(np.int64): torch.int64,
}
_NUMPY_TYPES: dict[torch.dtype, np.dtype[Any]] = {
    torch.float32: np.dtype(np.float32),
    torch.float16: np.dtype(np.float16),
    torch.bfloat16: np.dtype(np.int16),  # its bits
    torch.int32: np.dtype(np.int32),
}


class Event(Protocol):
    """What of `torch.cuda.Event` is used here."""

    def synchronize(self) -> None:
        """Wait until the device has done all that was queued before the event."""
        ...


class Deferred(Generic[T]):
    """A result that is collected when it is first asked for: `protocols.Pending`."""

    def __init__(self, collect: Callable[[], T]) -> None:
        """collect: waits for the device, and returns the result. Is called once, unless it raises."""
        self._collect: Callable[[], T] | None = collect
        self._value: T

    def result(self) -> T:
        """The result; waits for the device at the first call."""
        if self._collect is not None:
            self._value = self._collect()
            self._collect = None  # and with it all tensors that the result was made of
        return self._value


@dataclass(frozen=True, slots=True)
class Padded:
    """Rows of samples to be padded with zeros. items, width: of the padded array; rows beyond the given are zeros."""

    rows: Sequence[Samples]
    items: int
    width: int


def pad_columns(rows: Sequence[Sequence[int] | Array], items: int) -> npt.NDArray[np.int64]:
    """Rows of numbers, one for each item of a batch, as an array of shape (rows, items) with zeros at the end."""
    given = np.array(rows, np.int64)
    return np.pad(given, ((0, 0), (0, items - given.shape[1])))


class _Slot:
    """Host memory for the input of one batch, and the event after its copy to the device."""

    def __init__(self, *, pinned: bool) -> None:
        self._pinned = pinned
        self._memory = torch.empty(0, dtype=torch.uint8)
        self.copied: Event | None = None

    def reserve(self, size: int) -> torch.Tensor:
        """`size` bytes that no copy reads any more."""
        if self.copied is not None:
            self.copied.synchronize()  # three batches ago, so it is over, unless the device is far behind
            self.copied = None
        if len(self._memory) < size:
            self._memory = torch.empty(size, dtype=torch.uint8, pin_memory=self._pinned)
        return self._memory[:size]


class Upload:
    """Sends the input of each batch to the device in one copy, on a stream of its own.

    The copy of batch n+1 so runs while the device computes batch n. The tensors are valid until `SLOTS` more batches
    have been sent.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._stream = None if device.type != "cuda" else torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._slots = [_Slot(pinned=self._stream is not None) for _ in range(SLOTS)]
        self._next = 0

    def send(self, padded: Padded, arrays: Sequence[Array] = ()) -> list[torch.Tensor]:
        """On the device: the padded rows, float32, shape (items, width), then a tensor for each array.

        arrays: float32, float16, int16 or int64, of any shape. Does not wait for the device.
        """
        sizes = [4 * padded.items * padded.width, *(array.nbytes for array in arrays)]
        offsets = [0]
        for size in sizes:
            offsets.append(-(-(offsets[-1] + size) // ALIGNMENT) * ALIGNMENT)
        slot = self._slots[self._next]
        self._next = (self._next + 1) % SLOTS
        memory = slot.reserve(offsets[-1])
        host = memory.numpy()
        rows = host[: sizes[0]].view(np.float32).reshape(padded.items, padded.width)
        for row, samples in zip(rows, padded.rows, strict=False):
            row[: len(samples)] = samples
            row[len(samples) :] = 0
        rows[len(padded.rows) :] = 0
        for offset, array in zip(offsets[1:], arrays, strict=False):
            host[offset : offset + array.nbytes] = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        device, slot.copied = self._copy(memory)
        found = [device[: sizes[0]].view(torch.float32).view(padded.items, padded.width)]
        for offset, array in zip(offsets[1:], arrays, strict=False):
            part = device[offset : offset + array.nbytes].view(_TYPES[array.dtype])
            found.append(part.view(array.shape))
        return found

    def _copy(self, memory: torch.Tensor) -> tuple[torch.Tensor, Event | None]:
        """The bytes on the device, which the device's work from now on waits for; and the event after the copy."""
        if self._stream is None:
            return memory, None
        computing = torch.cuda.current_stream(self._device)
        with torch.cuda.stream(self._stream):
            device = memory.to(self._device, non_blocking=True)
            copied = torch.cuda.Event()  # type: ignore[no-untyped-call]
            copied.record(self._stream)
        computing.wait_event(copied)
        device.record_stream(computing)  # the allocator must not reuse it for a later copy before the batch is done
        return device, copied


class Download:
    """Sends several tensors to the host in one copy. Does not wait for the device until `arrays` is called."""

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        """tensors: int32, float32, float16 or bfloat16, of any shape."""
        self._layout = [(tuple(tensor.shape), _NUMPY_TYPES[tensor.dtype]) for tensor in tensors]
        packed = torch.cat([tensor.contiguous().view(-1).view(torch.uint8) for tensor in tensors])
        self._host = packed.to("cpu", non_blocking=True)  # from a GPU: into pinned memory
        self._copied: torch.cuda.Event | None = None
        if packed.device.type == "cuda":
            # blocking: the thread sleeps instead of taking a core; that core decodes files meanwhile
            self._copied = torch.cuda.Event(blocking=True)  # type: ignore[no-untyped-call]
            self._copied.record(torch.cuda.current_stream(packed.device))

    def arrays(self) -> list[Array]:
        """All tensors as arrays in the host's memory, bfloat16 as its bits in int16. Waits for the device."""
        if self._copied is not None:
            self._copied.synchronize()
        host = self._host.numpy()
        found, offset = [], 0
        for shape, dtype in self._layout:
            size = int(np.prod(shape)) * dtype.itemsize
            found.append(host[offset : offset + size].view(dtype).reshape(shape))
            offset += size
        return found
