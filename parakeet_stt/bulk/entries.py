"""The recordings of an archive, one after another: of a manifest, a folder, or one file, wherever pyarrow reads.

An archive is read as it is needed, and never as a whole. Its forms are those of `measure/manifests.py`, without texts.
"""

from __future__ import annotations

import hashlib
import os
import posixpath
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import PurePosixPath
from typing import Any, BinaryIO, cast

from pyarrow import fs

from parakeet_stt.audio import RECORDING_SUFFIXES
from parakeet_stt.measure.manifests import METADATA, TABLES, BadManifest, Fields, find_audio, find_part, read_rows

KEY_DIGITS = 32
TASK_ENTRIES, TASK_SECONDS = 32, 480.0  # of one task at most: of short ones it makes a block of some minutes
BYTES_A_SECOND = 16_000  # of most files: FLAC at 16 kHz, MP3 at 128 kbit/s; of wav twice as many
TABLE_SUFFIXES = (*TABLES, ".parquet")
LOCAL = "file"


@dataclass(frozen=True, slots=True)
class Entry:
    """One recording, or a part of one.

    key: of its name and part, in hexadecimal digits; equal for the same recording in every run. name: as the archive
    names it. address: of its file, with a scheme unless it is on this machine. offset, duration: the part, in seconds;
    a duration of None lasts to the end. content: the file's bytes, where the archive has them in place of files.
    expected_seconds: about how long it is, if anything tells; else 0.
    """

    key: str
    name: str
    address: str
    offset: float = 0.0
    duration: float | None = None
    content: bytes | None = None
    expected_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Shard:
    """The entries of one of several runs. number: from 0. count: of all."""

    number: int = 0
    count: int = 1

    @classmethod
    def of(cls, text: str) -> Shard:
        """As it is written, `3/8`, from 0. Raises ValueError."""
        number, slash, count = text.partition("/")
        shard = cls(int(number), int(count)) if slash and number.isdecimal() and count.isdecimal() else cls(1, 0)
        if not shard.number < shard.count:
            raise ValueError(f"{text!r} is no shard: 0/8 to 7/8 are those of eight")
        return shard

    def has(self, key: str) -> bool:
        """Whether an entry belongs to it."""
        return int(key[:12], 16) % self.count == self.number


def make_key(name: str, offset: float = 0.0, duration: float | None = None) -> str:
    """The key of a recording of this name, or of a part of it."""
    part = f"\0{offset}\0{duration}" if offset else ""
    return hashlib.sha256((name + part).encode(errors="surrogateescape")).hexdigest()[:KEY_DIGITS]


@lru_cache(maxsize=64)
def _open_bucket(root: str) -> Any:
    try:
        return fs.FileSystem.from_uri(root)[0]
    except (ValueError, OSError):  # not one of pyarrow's own: fsspec knows more
        import fsspec  # type: ignore[import-untyped]

        return fs.PyFileSystem(fs.FSSpecHandler(fsspec.core.url_to_fs(root)[0]))


def find_filesystem(address: str) -> tuple[Any, str]:
    """The pyarrow file system of an address, and the path there. Raises OSError, ValueError, ImportError."""
    scheme, colon, rest = address.partition("://")
    if not colon or scheme == LOCAL:
        return fs.LocalFileSystem(), os.path.abspath(rest if colon else address)
    if scheme in ("http", "https"):
        return _open_bucket(address), address
    root = f"{scheme}://{rest.partition('/')[0]}"
    return _open_bucket(root), rest.partition("?")[0]


def read_entries(source: str, shard: Shard, fields: Fields | None = None) -> Iterator[Entry]:
    """The entries of a shard of an archive, in its order. Raises BadManifest, OSError."""
    system, path = find_filesystem(source)
    is_bare = "://" in source and "://" not in path and not source.startswith(f"{LOCAL}:")  # the path has no scheme
    scheme = source.partition("://")[0] + "://" if is_bare else ""
    info = system.get_file_info(path)
    if info.type == fs.FileType.NotFound:
        raise BadManifest(f"{source} does not exist")
    archive = _Archive(system, scheme, fields or Fields())
    if info.type == fs.FileType.Directory:
        found = archive.of_folder(path.rstrip("/"))
    elif PurePosixPath(path).suffix in TABLE_SUFFIXES:
        found = archive.of_table(path)
    elif PurePosixPath(path).suffix.lower() in RECORDING_SUFFIXES:
        found = iter([archive.entry(PurePosixPath(path).name, info)])
    else:
        raise BadManifest(f"{source}: a manifest ends with {', '.join(TABLE_SUFFIXES)}")
    return (entry for entry in found if shard.has(entry.key))


def group_entries(entries: Iterable[Entry]) -> Iterator[list[Entry]]:
    """The entries in groups of what one task reads: long recordings alone, so that all cores read."""
    group: list[Entry] = []
    for entry in entries:
        group.append(entry)
        if len(group) == TASK_ENTRIES or sum(one.expected_seconds for one in group) >= TASK_SECONDS:
            yield group
            group = []
    if group:
        yield group


def _guess_seconds(size: int, name: str) -> float:
    return size / (2 * BYTES_A_SECOND if name.lower().endswith(".wav") else BYTES_A_SECOND)


@dataclass(frozen=True, slots=True)
class _Archive:
    system: Any
    scheme: str
    fields: Fields

    def entry(self, name: str, info: Any) -> Entry:
        seconds = _guess_seconds(info.size or 0, name)
        return Entry(make_key(name), name, self.scheme + info.path, expected_seconds=seconds)

    def of_folder(self, folder: str) -> Iterator[Entry]:
        """Of its metadata file or its tables, if there are any; or else of its recordings."""
        infos = self._list(folder)
        metadata = next((f"{folder}/{name}" for name in METADATA if any(one.base_name == name for one in infos)), None)
        tables = [one.path for one in infos if one.is_file and one.extension == "parquet"]
        for path in [metadata] if metadata else tables:
            yield from self.of_table(path)
        if not metadata and not tables:
            yield from self._of_recordings(folder, folder)

    def of_table(self, path: str) -> Iterator[Entry]:
        """Of its rows."""
        address, folder = self.scheme + path, os.path.dirname(path)
        with self.system.open_input_file(path) as file:
            try:
                for number, row in enumerate(read_rows(cast(BinaryIO, file), path), start=1):
                    yield self._of_row(row, f"{address}, entry {number}", folder)
            except UnicodeDecodeError as exc:
                raise BadManifest(f"{address}: {exc}") from exc

    def _of_row(self, row: Mapping[str, Any], where: str, folder: str) -> Entry:
        name, audio = find_audio(row, where, self.fields)
        offset, duration = find_part(row, where)
        key = make_key(name, offset, duration)
        if isinstance(audio, bytes):
            seconds = duration or _guess_seconds(len(audio), name)
            return Entry(key, name, where, offset, duration if offset else None, audio, seconds)
        is_whole_address = "://" in audio or os.path.isabs(audio)
        address = audio if is_whole_address else f"{folder}/{audio}"
        if self.scheme and not is_whole_address:
            address = self.scheme + posixpath.normpath(address)  # a store knows no ".."
        if not self.scheme and not is_whole_address and not os.path.exists(address):
            in_clips = f"{folder}/clips/{audio}"  # Common Voice
            address = in_clips if os.path.exists(in_clips) else address
        # Many manifests give every file's duration, rounded: without an offset it names no part.
        return Entry(key, name, address, offset, duration if offset else None, expected_seconds=duration or 0.0)

    def _of_recordings(self, folder: str, root: str) -> Iterator[Entry]:
        for info in self._list(folder):
            if info.type == fs.FileType.Directory:
                yield from self._of_recordings(info.path, root)
            elif f".{info.extension.lower()}" in RECORDING_SUFFIXES:
                yield self.entry(info.path.removeprefix(root).lstrip("/"), info)

    def _list(self, folder: str) -> list[Any]:
        infos = self.system.get_file_info(fs.FileSelector(folder))
        return sorted((one for one in infos if not one.base_name.startswith(".")), key=lambda one: str(one.path))
