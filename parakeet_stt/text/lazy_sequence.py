"""Knows sequences whose items are made when they are asked for: all at once would be too many. Knows nothing else."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")


class Lazy(Sequence[T]):
    """So many items, each made by `make` from its index whenever it is asked for; a slice makes all of its own."""

    def __init__(self, count: int, make: Callable[[int], T]) -> None:
        self._count = count
        self._make = make

    def __len__(self) -> int:
        return self._count

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        indices = range(self._count)[index]
        return self._make(indices) if isinstance(indices, int) else tuple(map(self._make, indices))


def each(items: Sequence[S], make: Callable[[S], T]) -> Lazy[T]:
    """What `make` makes of each of `items`."""
    return Lazy(len(items), lambda index: make(items[index]))
