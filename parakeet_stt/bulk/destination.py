"""The tables of transcripts and errors, as files that are either whole or not there, and what they say is finished.

    DEST/transcripts/shard=00000-of-00001/part-….parquet      a row for each recording; or .jsonl
    DEST/errors/shard=00000-of-00001/part-….parquet           a row for each recording that has no transcript

A file gets its name once it is whole. The rows in files with names are the journal: nothing else is kept.
"""

from __future__ import annotations

import io
import json
import os
import re
import secrets
import time
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import pyarrow as pa
from pyarrow import fs, parquet

from parakeet_stt.bulk.entries import KEY_DIGITS, Shard, find_filesystem
from parakeet_stt.bulk.rows import ERRORS, TRANSCRIPTS, Rows
from parakeet_stt.errors import SpeechError

Form = Literal["parquet", "jsonl"]
TABLES = {"transcripts": TRANSCRIPTS, "errors": ERRORS}
ROWS, SECONDS = 2000, 30.0  # of one file: a run that is killed loses no more; hours of words are some MB
HIDDEN = "."  # names of files that are not whole begin with it, and readers of tables skip those
WHOLE_AT_ONCE = {"s3", "gcs", "abfs"}  # an object of these is there when all of it is
KEY = re.compile(rb'\{"key": "([0-9a-f]{%d})"' % KEY_DIGITS)


class DestinationError(SpeechError):
    """The destination can't be used; the message is one line."""


class Destination:
    """The tables of one run. One thread calls."""

    def __init__(self, address: str, form: Form, shard: Shard) -> None:
        """Raises DestinationError if it can't be written, or if another run on this machine writes this shard there."""
        self.address = address
        self._form = form
        self._shard = f"shard={shard.number:05}-of-{shard.count:05}"
        self._has = shard.has
        self._run = f"{int(time.time()):x}-{secrets.token_hex(4)}"
        self._count = 0
        self._waiting: dict[str, list[dict[str, Any]]] = {name: [] for name in TABLES}
        self._since = time.monotonic()
        try:
            self._system, self._root = find_filesystem(address)
            self._root = self._root.rstrip("/")
            for name in TABLES:
                self._system.create_dir(f"{self._root}/{name}/{self._shard}", recursive=True)
            self._lock = self._lock_here()
            self._remove_unfinished()
        except (OSError, ValueError, ImportError) as exc:
            raise DestinationError(f"{address} can't be written: {exc}") from exc

    def finished(self) -> dict[str, set[str]]:
        """The keys of this shard's recordings that have a row, by table, whichever run has written it."""
        return {name: {key for key in self._keys(name) if self._has(key)} for name in TABLES}

    def add(self, rows: Rows) -> None:
        """Keep rows, to be written with others soon. Raises DestinationError."""
        self._waiting["transcripts"] += rows.transcripts
        self._waiting["errors"] += rows.errors
        count = sum(map(len, self._waiting.values()))
        if count >= ROWS or time.monotonic() - self._since > SECONDS:
            self.flush()

    def flush(self) -> None:
        """Write all rows that wait. Raises DestinationError."""
        self._since = time.monotonic()
        for name, rows in self._waiting.items():
            if rows:
                path = f"{self._root}/{name}/{self._shard}/part-{self._run}-{self._count:06}.{self._form}"
                try:
                    write_whole(self._system, path, self._render(rows, TABLES[name]))
                except OSError as exc:
                    raise DestinationError(f"{path} can't be written: {exc}") from exc
                self._count += 1
                rows.clear()

    def close(self) -> None:
        """Let another run write here. What waits is not written."""
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _render(self, rows: Sequence[dict[str, Any]], schema: Any) -> bytes:
        if self._form == "jsonl":
            return "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows).encode(errors="replace")
        file = io.BytesIO()
        parquet.write_table(pa.Table.from_pylist(list(rows), schema), file, compression="zstd")
        return file.getvalue()

    def _keys(self, table: str) -> Iterator[str]:
        for info in self._files(table):
            with self._system.open_input_file(info.path) as file:
                if info.extension == "parquet":
                    for batch in parquet.ParquetFile(file).iter_batches(columns=["key"]):
                        yield from batch["key"].to_pylist()
                else:
                    for line in io.BufferedReader(file):
                        if match := KEY.match(line):
                            yield match[1].decode()

    def _files(self, table: str) -> list[Any]:
        infos = self._system.get_file_info(fs.FileSelector(f"{self._root}/{table}", recursive=True))
        return [one for one in infos if one.extension in ("parquet", "jsonl") and not one.base_name.startswith(HIDDEN)]

    def _remove_unfinished(self) -> None:
        for name in TABLES:
            for info in self._system.get_file_info(fs.FileSelector(f"{self._root}/{name}/{self._shard}")):
                if info.base_name.startswith(HIDDEN) and info.is_file:
                    self._system.delete_file(info.path)

    def _lock_here(self) -> int | None:
        """Hold a lock while this process lives; on other file systems, and on Windows, two runs are not noticed."""
        if not isinstance(self._system, fs.LocalFileSystem):
            return None
        try:
            import fcntl
        except ImportError:
            return None
        lock = os.open(f"{self._root}/{HIDDEN}{self._shard}.lock", os.O_CREAT | os.O_RDWR, 0o644)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(lock)
            raise DestinationError(f"another parakeet bulk is writing {self._shard} of {self.address}") from None
        return lock


def write_whole(system: Any, path: str, body: bytes) -> None:
    """Write a file that has its name only once it is whole. Raises OSError."""
    folder, _, name = path.rpartition("/")
    part = path if system.type_name in WHOLE_AT_ONCE else f"{folder}/{HIDDEN}{name}"
    if isinstance(system, fs.LocalFileSystem):
        with open(part, "wb") as local:
            local.write(body)
            local.flush()
            os.fsync(local.fileno())  # or a machine that loses its power may keep the name without the content
    else:
        with system.open_output_stream(part) as file:
            file.write(body)
    if part != path:
        system.move(part, path)
