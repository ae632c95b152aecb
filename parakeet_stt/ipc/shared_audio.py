"""Audio in shared memory: one process writes samples, another reads them; only the descriptor crosses between the two.

The memory is a file without a name, so the kernel frees it with the last process that has it open, however that ends.
"""

from __future__ import annotations

import ctypes
import os
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio, Samples, Span

SAMPLE_BYTES = 4  # float32
FREED_SAMPLES = 30 * SAMPLE_RATE  # that are freed at once: a system call, and 2 MB
KEEP_SIZE, PUNCH_HOLE = 1, 2  # of Linux' fallocate(2)


def create_memory_file(name: str) -> int:
    """The descriptor of an empty file in memory; elsewhere than on Linux in a temporary folder. It has no name."""
    if sys.platform == "linux":
        return os.memfd_create(name, os.MFD_CLOEXEC)
    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def write_samples(descriptor: int, first: int, samples: Samples) -> None:
    """Write samples at a place, counted in samples. Raises OSError where there is no memory."""
    data, offset = np.ascontiguousarray(samples).data.cast("B"), SAMPLE_BYTES * first
    assert samples.dtype == np.float32
    while data:
        written = os.pwrite(descriptor, data, offset)
        data, offset = data[written:], offset + written


def read_samples(descriptor: int, first: int, count: int) -> Samples:
    """The samples at a place; zeros where nothing was written, or what was written is freed."""
    samples = np.empty(count, np.float32)
    read_into(descriptor, first, samples)
    return samples


def read_into(descriptor: int, first: int, samples: Samples) -> None:
    """Read the samples at a place into an array; zeros for what lies after the end of the file."""
    view, offset = samples.data.cast("B"), SAMPLE_BYTES * first
    while view and (read := os.preadv(descriptor, [view], offset)):
        view, offset = view[read:], offset + read
    if view:
        samples[len(samples) + -len(view) // SAMPLE_BYTES :] = 0


class SharedAudio:
    """An audio store in shared memory; see `audio.AudioStore`."""

    def __init__(self) -> None:
        self.descriptor = create_memory_file("audio")
        self.length = 0
        self.first = 0
        self._freed = 0

    def append(self, samples: Samples) -> None:
        """Add samples at the end."""
        write_samples(self.descriptor, self.length, samples)
        self.length += len(samples)

    def extend(self, count: int) -> None:
        """Another process has written so many samples at the end."""
        self.length += count

    @property
    def stored(self) -> int:
        """Number of samples in memory now."""
        return self.length - self._freed

    def clip(self, start: int, end: int) -> SharedClip:
        """See `audio.AudioStore`."""
        last = max(self.first, min(end, self.length))
        return SharedClip(self, Span(min(max(start, self.first), last), last))

    def discard_before(self, end: int) -> None:
        """See `audio.AudioStore`. Frees memory in large parts."""
        self.first = max(self.first, min(end, self.length))
        if self.first - self._freed >= FREED_SAMPLES and self.descriptor >= 0:
            _punch(self.descriptor, SAMPLE_BYTES * self._freed, SAMPLE_BYTES * (self.first - self._freed))
            self._freed = self.first

    def close(self) -> None:
        """Free this process's hold on the memory."""
        if self.descriptor >= 0:
            os.close(self.descriptor)
            self.descriptor = -1


@dataclass(frozen=True, slots=True, eq=False)
class SharedClip:
    """A span of shared audio; see `audio.Clip`."""

    source: SharedAudio
    span: Span

    @property
    def length(self) -> int:
        """Number of samples."""
        return self.span.length

    @property
    def duration(self) -> float:
        """Length in seconds."""
        return self.span.length / SAMPLE_RATE

    def slice(self, span: Span) -> SharedClip:
        """The part inside `span`."""
        end = min(span.end, self.length)
        return SharedClip(self.source, Span(self.span.start + min(span.start, end), self.span.start + end))

    def load(self) -> Audio:
        """Its samples, copied into this process's memory."""
        return Audio(read_samples(self.source.descriptor, self.span.start, self.length))


def _find_fallocate() -> Callable[..., int] | None:
    found = getattr(ctypes.CDLL(None, use_errno=True), "fallocate", None) if sys.platform == "linux" else None
    if found is not None:
        found.argtypes = (ctypes.c_int, ctypes.c_int, ctypes.c_int64, ctypes.c_int64)
    return found


_fallocate = _find_fallocate()


def _punch(descriptor: int, start: int, size: int) -> None:
    """Free a part of the file, which keeps its length. Elsewhere than on Linux the memory stays until the end."""
    if _fallocate is not None:
        _fallocate(descriptor, KEEP_SIZE | PUNCH_HOLE, start, size)
