"""Reads a request's form, its files into memory files: a media worker gets the descriptor, not the bytes."""

from __future__ import annotations

import io
import os
import shutil
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from typing import BinaryIO, cast

from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.formparsers import FormParser, MultiPartException, MultiPartParser
from starlette.requests import Request

from parakeet_stt.errors import InvalidField, RequestError, UploadTooLarge
from parakeet_stt.ipc.shared_audio import create_memory_file

MEMORY_BYTES = 64 << 20  # of one file; a longer one goes on in a temporary folder
MAX_FILES = 4  # in one form: one is expected, and more are told so
MAX_TEXT_BYTES = 1 << 20  # of all fields of a form that are no files, and no references
# Of all references of known speakers, as data URLs: each of four has 7.7 MB at 96 kHz in stereo.
REFERENCES, MAX_REFERENCE_BYTES = "known_speaker_references", 32 << 20
# Decoding takes a time that grows with the square of the length in some of Python's other encodings: punycode, idna.
CHARSETS = ("", "utf-8", "utf8", "us-ascii")


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
    """Starlette's parser, with `MemoryFile` in place of its own temporary files, and a limit of all text together.

    References of known speakers have a limit of their own. Raises UploadTooLarge for more text.
    """

    _text_bytes = _reference_bytes = 0

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        if self._current_part.file is None:
            is_reference = self._current_part.field_name.startswith(REFERENCES)
            self._reference_bytes += (end - start) * is_reference
            self._text_bytes += (end - start) * (not is_reference)
            if self._text_bytes > MAX_TEXT_BYTES or self._reference_bytes > MAX_REFERENCE_BYTES:
                raise _too_much_text()
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
    """The fields of a request's form; their files are closed at the end.

    Raises HTTPException for a damaged form, InvalidField for an encoding other than UTF-8, UploadTooLarge.
    """
    form = await _read_form(request)
    try:
        yield form
    finally:
        await form.close()


async def _read_form(request: Request) -> FormData:
    kind, options = parse_options_header(request.headers.get("content-type"))
    charset = options.get(b"charset", b"").decode("latin-1")
    if charset.lower() not in CHARSETS:
        raise InvalidField(f"charset: a form is to be in UTF-8, not in {charset!r}", param="charset")
    if kind not in (b"", b"application/x-www-form-urlencoded", b"multipart/form-data"):
        raise RequestError(
            f"content-type: multipart/form-data is expected, not {kind.decode('latin-1')[:100]}",
            param="content-type",
            code="invalid_content_type",
        )
    try:
        if kind == b"multipart/form-data":
            async with aclosing(request.stream()) as stream:
                parser = _Parser(request.headers, stream, max_files=MAX_FILES, max_part_size=MAX_REFERENCE_BYTES)
                return await parser.parse()
        if kind == b"application/x-www-form-urlencoded":
            async with aclosing(_bounded(request.stream())) as stream:
                return await FormParser(request.headers, stream).parse()
    except MultiPartException as exc:
        raise HTTPException(400, exc.message) from exc
    return FormData()


async def _bounded(stream: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    """The same bytes. Raises UploadTooLarge once there are more than text may have."""
    count = 0
    async with aclosing(stream):
        async for data in stream:
            count += len(data)
            if count > MAX_TEXT_BYTES:
                raise _too_much_text()
            yield data


def _too_much_text() -> UploadTooLarge:
    return UploadTooLarge(f"The form's fields have more than {MAX_TEXT_BYTES} bytes of text together.", param=None)
