"""The journal beside the outputs: what was transcribed, by its content, so that it need not be done again.

An entry is written before its outputs get their names. So at any moment an output under its name is whole, and one that
a killed command has not named yet is named by the next one.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any

NAME = ".parakeet-journal.jsonl"
PART = ".part"  # ends the name of an output that is not named yet


class OutputError(Exception):
    """An output can't be written; the message is one line."""


@dataclass(frozen=True, slots=True)
class Written:
    """One output. path: below the output folder. sha256: of its bytes."""

    path: str
    sha256: str

    @classmethod
    def of(cls, path: PurePath, body: bytes) -> Written:
        """An output with these bytes."""
        return cls(str(path), hashlib.sha256(body).hexdigest())


@dataclass(frozen=True, slots=True)
class Entry:
    """A recording that was transcribed.

    content: sha256 of its bytes. asked: sha256 of what was asked for beside the format. source: as it was named.
    outputs: by format. speakers: that were told apart. validators: with which an address can be asked whether the
    content has changed.
    """

    content: str
    asked: str
    source: str
    outputs: dict[str, Written]
    is_truncated: bool = False
    speakers: tuple[str, ...] = ()
    validators: dict[str, str] = field(default_factory=dict)

    def to_line(self) -> str:
        """As a line of the journal."""
        outputs = {name: [one.path, one.sha256] for name, one in self.outputs.items()}
        described: dict[str, Any] = {
            "content": self.content,
            "asked": self.asked,
            "source": self.source,
            "outputs": outputs,
        }
        if self.is_truncated:
            described["truncated"] = True
        if self.speakers:
            described["speakers"] = self.speakers
        if self.validators:
            described["validators"] = self.validators
        return json.dumps(described, ensure_ascii=False) + "\n"

    @classmethod
    def from_line(cls, line: str) -> Entry | None:
        """Of a line of the journal; None for one that is incomplete."""
        try:
            read = json.loads(line)
            outputs = {name: Written(*one) for name, one in read["outputs"].items()}
            return cls(
                read["content"], read["asked"], read["source"], outputs,
                bool(read.get("truncated")), tuple(read.get("speakers", ())), dict(read.get("validators", {})),
            )  # fmt: skip
        except (ValueError, KeyError, TypeError, AttributeError):
            return None


class Journal:
    """The journal of an output folder, while one command writes there."""

    def __init__(self, folder: Path) -> None:
        """Lock it and read it. Use `opened`, which closes it too."""
        self._folder = folder
        self._file = (folder / NAME).open("a+b")
        _lock(self._file.fileno(), folder)
        self._file.seek(0)
        lines = self._file.read().decode("utf-8", "replace")
        if lines and not lines.endswith("\n"):  # a command was killed in it
            self._file.write(b"\n")
        self._entries: defaultdict[tuple[str, str], list[Entry]] = defaultdict(list)  # by content and what was asked
        self._sources: dict[tuple[str, str], Entry] = {}  # by name and what was asked
        self._owned: set[Written] = set()
        for entry in filter(None, map(Entry.from_line, lines.splitlines())):
            self._add(entry)

    @classmethod
    @contextmanager
    def opened(cls, folder: Path) -> Iterator[Journal]:
        """The journal of `folder`, made if need be. Raises OutputError, also if another command writes there."""
        try:
            folder.mkdir(parents=True, exist_ok=True)
            journal = cls(folder)
        except OSError as exc:
            raise OutputError(f"{folder} can't be written: {exc.strerror}") from exc
        with journal._file:
            yield journal

    def find_source(self, name: str, asked: str) -> Entry | None:
        """The newest entry of an address."""
        return self._sources.get((name, asked))

    def find(self, content: str, asked: str, output: str, path: PurePath) -> tuple[bytes, Entry] | None:
        """An output of this content, wherever it was written. None if there is none, or it was changed since.

        output: the format. path: where it should be, below the folder.
        """
        for entry in reversed(self._entries[content, asked]):
            if written := entry.outputs.get(output):
                for place in (path, _part(path), PurePath(written.path), _part(PurePath(written.path))):
                    body = self._read(place)
                    if body is not None and hashlib.sha256(body).hexdigest() == written.sha256:
                        return body, entry
        return None

    def has(self, path: PurePath, body: bytes) -> bool:
        """Whether an output with these bytes is at `path`, and is this command's."""
        return self._read(path) == body and Written.of(path, body) in self._owned

    def check_free(self, path: PurePath) -> None:
        """Raises OutputError if there is a file at `path` that no command has written."""
        body = self._read(path)
        if body is None:
            return
        if Written.of(path, body) not in self._owned:
            raise OutputError(f"{self._folder / path} exists and is not this command's: --force overwrites it")

    def write(self, entry: Entry, bodies: Mapping[str, bytes]) -> None:
        """Record an entry and write its outputs. Raises OutputError."""
        try:
            for name, body in bodies.items():
                part = self._folder / _part(PurePath(entry.outputs[name].path))
                part.parent.mkdir(parents=True, exist_ok=True)
                part.write_bytes(body)
            if not self._is_recorded(entry):
                self._file.write(entry.to_line().encode())
                self._file.flush()
                self._add(entry)
            for name in bodies:
                path = self._folder / entry.outputs[name].path
                os.replace(self._folder / _part(PurePath(entry.outputs[name].path)), path)
        except OSError as exc:
            raise OutputError(f"{exc.filename or self._folder} can't be written: {exc.strerror}") from exc

    def _read(self, path: PurePath) -> bytes | None:
        with suppress(OSError):
            return (self._folder / path).read_bytes()
        return None

    def _is_recorded(self, entry: Entry) -> bool:
        """Whether it is known already: a command was killed before it had named all outputs."""
        return any(
            entry.outputs.items() <= other.outputs.items() for other in self._entries[entry.content, entry.asked]
        )

    def _add(self, entry: Entry) -> None:
        self._entries[entry.content, entry.asked].append(entry)
        self._sources[entry.source, entry.asked] = entry
        self._owned.update(entry.outputs.values())


def digest_of(asked: Mapping[str, Any]) -> str:
    """The sha256 of what is asked for beside the format."""
    return hashlib.sha256(json.dumps(asked, sort_keys=True).encode()).hexdigest()


def _part(path: PurePath) -> PurePath:
    return path.with_name(f".{path.name}{PART}")


def _lock(descriptor: int, folder: Path) -> None:
    try:
        import fcntl
    except ImportError:  # Windows: two commands in one folder are not noticed there
        return
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as exc:
        raise OutputError(f"another parakeet transcribe is writing to {folder}") from exc
