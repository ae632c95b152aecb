"""Reads a request's form, its files into memory files: a media worker gets the descriptor, not the bytes."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import BinaryIO, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from parakeet_stt.ipc.shared_audio import create_memory_file

# Of one field of text, and of all together: a reference of a known speaker has 7.7 MB at 96 kHz in stereo.
FIELD_BYTES, FORM_BYTES = 8 << 20, 32 << 20
MEMORY_BYTES = 64 << 20  # of one file; a longer one goes on in a temporary folder


class MemoryFile(io.FileIO):
    """A file in memory that moves to a temporary folder when it has grown too large. It has a descriptor either way."""

    def __init__(self) -> None:
        super().__init__(create_memory_file("upload"), "r+b")
        self._max_size = MEMORY_BYTES  # these two are read by Starlette, which writes in a thread to a file on a disk
        self._rolled = False

    def write(self, data: bytes) -> int:  # type: ignore[override]
        """Write all of the bytes. Returns their number."""
        if not self._rolled and self.tell() + len(data) > MEMORY_BYTES:
            self._move()
        view = memoryview(data)
        while view:
            view = view[super().write(view) :]
        return len(data)

    def _move(self) -> None:
        """Continue in a temporary folder, under the same descriptor."""
        with tempfile.TemporaryFile() as file:
            self.seek(0)
            shutil.copyfileobj(self, file, 1 << 20)
            os.dup2(file.fileno(), self.fileno(), inheritable=False)
        self._rolled = True


class _Parser(MultiPartParser):
    """Starlette's parser, with `MemoryFile` in place of its own temporary files, and a limit for all text together."""

    _text_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            self._text_bytes += end - start
            if self._text_bytes > FORM_BYTES:
                raise MultiPartException(f"The fields have more than {FORM_BYTES >> 20} MB of text.")
        super().on_part_data(data, start, end)

    def on_headers_finished(self) -> None:
        super().on_headers_finished()
        upload = self._current_part.file
        if upload is not None:
            upload.file.close()
            upload.file = cast(BinaryIO, MemoryFile())
            upload._max_mem_size = MEMORY_BYTES
            self._files_to_close_on_error[-1] = upload.file  # type: ignore[call-overload]


@asynccontextmanager
async def open_form(request: Request) -> AsyncIterator[FormData]:
    """The fields of a request's form; their files are closed at the end. Raises HTTPException for a damaged form."""
    form = await _read_form(request)
    try:
        yield form
    finally:
        await form.close()


async def _read_form(request: Request) -> FormData:
    kind, _ = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data":
        return await request.form()
    try:
        async with aclosing(request.stream()) as stream:
            return await _Parser(request.headers, stream, max_part_size=FIELD_BYTES).parse()
    except MultiPartException as exc:
        raise HTTPException(400, exc.message) from exc
