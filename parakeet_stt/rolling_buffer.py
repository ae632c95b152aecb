"""Knows how a part of an endless array is kept: what comes is added, what is past is forgotten. Knows nothing else."""

from __future__ import annotations

from collections import deque

import numpy as np
import numpy.typing as npt


class Held:
    """A stretch of an endless array of float32, of which the beginning is forgotten in time."""

    def __init__(self) -> None:
        self._blocks: deque[tuple[int, npt.NDArray[np.float32]]] = deque()  # each with the place of its first value
        self.length = 0  # of all, with what is forgotten

    @property
    def kept(self) -> int:
        """How many values are held now."""
        return sum(len(block) for _, block in self._blocks)

    @property
    def first(self) -> int:
        """The place of the first value that is held; the end if none is."""
        return self._blocks[0][0] if self._blocks else self.length

    def add(self, block: npt.NDArray[np.float32]) -> None:
        """Append."""
        if len(block):
            self._blocks.append((self.length, block))
            self.length += len(block)

    def cut(self, start: int, end: int) -> npt.NDArray[np.float32]:
        """What is held of `[start, end)`."""
        parts = [
            block[max(0, start - first) : end - first]
            for first, block in self._blocks
            if first < end and start < first + len(block)
        ]
        return parts[0] if len(parts) == 1 else np.concatenate([np.zeros(0, np.float32), *parts])

    def forget(self, end: int) -> None:
        """What lies before `end` is not needed any more."""
        while self._blocks and self._blocks[0][0] + len(self._blocks[0][1]) <= end:
            self._blocks.popleft()
