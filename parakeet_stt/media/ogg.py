"""Chained Ogg files: several streams one after another, as internet radio and `cat` make them (RFC 3533, section 4).

FFmpeg goes on with the next link only where it has the same codec, rate and channels; of others it says nothing.
"""

from __future__ import annotations

import io
from typing import Any, BinaryIO

MARK = b"OggS"
HEADER_BYTES = 27  # of a page, before the lengths of its segments
BEGINS = 2  # in the header's flags: the first page of a stream
SEARCH_BYTES = 1 << 16  # read at once where something else lies between two pages


def find_links(source: BinaryIO) -> list[tuple[int, int]]:
    """Where each link begins and ends, in bytes; none for a file that is no Ogg."""
    starts: list[int] = []
    had_beginning = False  # whether the page before was the first of a stream: one link may have several
    position, end = 0, source.seek(0, 2)
    source.seek(0)
    if source.read(len(MARK)) != MARK:
        return []
    while (position := _find_page(source, position)) >= 0:
        source.seek(position)
        header = source.read(HEADER_BYTES)
        if len(header) < HEADER_BYTES:
            break
        segments = source.read(header[-1])
        begins = bool(header[5] & BEGINS)
        if begins and not had_beginning:
            starts.append(position)
        following = position + HEADER_BYTES + len(segments) + sum(segments)
        source.seek(following)
        is_whole = following == end or source.read(len(MARK)) == MARK
        had_beginning = begins and is_whole
        position = following if is_whole else position + HEADER_BYTES  # the rest of a cut page is the next one's
    return list(zip(starts, [*starts[1:], end], strict=True)) if starts else []


def _find_page(source: BinaryIO, position: int) -> int:
    """Where the next page begins, at or after this place; -1 if there is none."""
    while True:
        source.seek(position)
        data = source.read(len(MARK))
        if data == MARK:
            return position
        data += source.read(SEARCH_BYTES)
        if (found := data.find(MARK)) >= 0:
            return position + found
        if len(data) < SEARCH_BYTES:
            return -1
        position += len(data) - len(MARK) + 1


class Link(io.RawIOBase):
    """One link of a file, as a file."""

    def __init__(self, source: BinaryIO, start: int, end: int) -> None:
        super().__init__()
        self._source = source
        self._start = start
        self._size = end - start
        self._position = 0

    def readable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seekable(self) -> bool:
        """See `io.IOBase`."""
        return True

    def seek(self, offset: int, whence: int = 0) -> int:
        """See `io.IOBase`."""
        base = (0, self._position, self._size)[whence]
        self._position = max(0, base + offset)
        return self._position

    def readinto(self, buffer: Any) -> int:
        """See `io.RawIOBase`."""
        view = memoryview(buffer)
        self._source.seek(self._start + self._position)
        data = self._source.read(max(0, min(len(view), self._size - self._position)))
        view[: len(data)] = data
        self._position += len(data)
        return len(data)
