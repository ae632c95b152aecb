"""Sequences that make an item when it is read, for lists that would be too large in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TypeVar, overload

S = TypeVar("S")
T = TypeVar("T")


class LazySequence(Sequence[T]):
    """A sequence of `count` items; `make` computes one from its index at each access. A slice computes all of its own.

    count: number of items. make: called with an index in [0, count).
    """

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


class DeferredSequence(LazySequence[T]):
    """The items of another sequence, which is made when they are first read."""

    def __init__(self, make_all: Callable[[], Sequence[T]]) -> None:
        self._make_all = make_all

    @cached_property
    def _items(self) -> Sequence[T]:
        return self._make_all()

    def __len__(self) -> int:
        return len(self._items)

    @overload
    def __getitem__(self, index: int) -> T: ...

    @overload
    def __getitem__(self, index: slice) -> Sequence[T]: ...

    def __getitem__(self, index: int | slice) -> T | Sequence[T]:
        return self._items[index]


def lazy_map(items: Sequence[S], function: Callable[[S], T]) -> LazySequence[T]:
    """`map` over a sequence, computed at each access."""
    return LazySequence(len(items), lambda index: function(items[index]))
