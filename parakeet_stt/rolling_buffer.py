"""A buffer of float32 values that grows at its end and is discarded at its beginning; places count from the start."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt


class RollingBuffer:
    """The last part of an endless array of float32."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, npt.NDArray[np.float32]]] = deque()  # each with the place of its first value
        self.length = 0  # of all values that were appended, discarded ones included

    @property
    def stored(self) -> int:
        """Number of values in memory now."""
        return sum(len(block) for _, block in self._blocks)

    @property
    def first(self) -> int:
        """Place of the first value in memory; the end of the array if there is none."""
        return self._blocks[0][0] if self._blocks else self.length

    def append(self, block: npt.NDArray[np.float32]) -> None:
        """Add values at the end."""
        if len(block):
            self._blocks.append((self.length, block))
            self.length += len(block)

    def slice(self, start: int, end: int) -> npt.NDArray[np.float32]:
        """The values of `[start, end)` that are in memory."""
        parts = [
            block[max(0, start - first) : end - first]
            for first, block in self._blocks
            if first < end and start < first + len(block)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])

    def discard_before(self, end: int) -> None:
        """Free the blocks that lie entirely before `end`."""
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= end:
            self._blocks.popleft()
