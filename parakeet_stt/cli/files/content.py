"""The bytes of a source: an open file, their sha256, and how many were sent."""

from __future__ import annotations

import asyncio
import hashlib
import io
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import BinaryIO, cast

from parakeet_stt.cli.files.sources import Source

COPY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Content:
    """A recording that can be read, more than once. name: with which it is uploaded. sha256: in hexadecimal digits."""

    file: BinaryIO
    name: str
    size: int
    sha256: str


class CountingReader:
    """A file that tells how many bytes of it were read: httpx uploads it."""

    def __init__(self, content: Content, on_read: Callable[[int], None]) -> None:
        """on_read: called with the position after each piece."""
        self._file, self._on_read = content.file, on_read
        self._file.seek(0)

    def read(self, size: int = -1) -> bytes:
        piece = self._file.read(size)
        self._on_read(self._file.tell())
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()

    def fileno(self) -> int:
        return self._file.fileno()


@asynccontextmanager
async def open_file(source: Source) -> AsyncIterator[Content]:
    """The content of a file or of standard input. Raises OSError."""
    if source.is_standard_input:
        with temporary_file() as file:
            await asyncio.to_thread(shutil.copyfileobj, sys.stdin.buffer, file, COPY_BYTES)
            yield await describe(file, source)
    else:
        with open(source.name, "rb") as file:  # noqa: ASYNC230  # opening is short, and reading is in a thread
            yield await describe(file, source)


def temporary_file() -> BinaryIO:
    """A file without a name, for what can't be read twice."""
    return tempfile.TemporaryFile(prefix="parakeet-")


async def describe(file: BinaryIO, source: Source) -> Content:
    """The content of an open file, which is read once for that."""
    file.seek(0)
    digest = await asyncio.to_thread(lambda: hashlib.file_digest(cast(io.BufferedReader, file), "sha256"))
    return Content(file, source.path.name, file.tell(), digest.hexdigest())
