"""Reads lists of recordings and of what is said in them, in the forms that people have them.

    a.jsonl, a.json    an object on each line, or one list: NeMo's `audio_filepath` and `text`, Hugging Face's
                       `file_name` and `transcription`, and the other names of `AUDIO` and `TEXT`
    a.csv, a.tsv       a table whose first line names its columns, as Common Voice has them
    a.parquet          what Hugging Face stores: audio as bytes beside its text; set-00000-of-00002.parquet is a part
    a folder           with metadata.jsonl or metadata.csv; or with a .txt beside each recording, in folders below too;
                       or with .parquet files, in folders below too

Paths are relative to the manifest's folder, or to `clips` in it. NeMo's `offset` and `duration` name a part of a file.
`words`, a list of objects with `word` (or `text`), `start` and `end` in seconds, gives the true times.
"""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from parakeet_stt.audio import RECORDING_SUFFIXES
from parakeet_stt.text.transcript import Word

# Names of fields, the first that is there counts. Sources: NeMo's manifests; Hugging Face's AudioFolder and `Audio`;
# Common Voice; the Open ASR Leaderboard's normalizer of data sets.
AUDIO = ("audio_filepath", "audio", "file_name", "path", "file", "wav")
TEXT = ("text", "sentence", "normalized_text", "transcript", "transcription", "norm_text", "reference")
NAME = ("id", "utt_id", "name")
SHARD = re.compile(r"-\d+-of-\d+$")  # of a set that Hugging Face stores in several files
METADATA = ("metadata.jsonl", "metadata.csv")


class BadManifest(ValueError):
    """A manifest that can't be read; the message names the file, the line and the field."""


@dataclass(frozen=True)
class Recording:
    """A recording, or a part of one, and what is said in it.

    audio: a file's path, or its bytes. offset, duration: the part, in seconds; a duration of None lasts to the end.
    words: with their true times, if they are known.
    """

    name: str
    audio: Path | bytes
    text: str
    offset: float = 0.0
    duration: float | None = None
    words: tuple[Word, ...] = ()


@dataclass(frozen=True)
class Fields:
    """Which fields have the audio and the text, where not the first known name counts."""

    audio: str | None = None
    text: str | None = None


@dataclass(frozen=True)
class Manifest:
    """A list of recordings, which is read anew each time, so that its audio never is in memory as a whole.

    path: a file or folder. parts: the files of a set that is stored in several. Reading raises BadManifest.
    """

    name: str
    path: Path
    fields: Fields = field(default_factory=Fields)
    parts: tuple[Path, ...] = ()

    def __iter__(self) -> Iterator[Recording]:
        for number, row in enumerate(self._rows(), start=1):
            yield row if isinstance(row, Recording) else _read_row(row, f"{self.path}, entry {number}", self.fields)

    def __len__(self) -> int:
        return sum(1 for _ in self._rows(only_count=True))

    def _rows(self, *, only_count: bool = False) -> Iterator[Mapping[str, Any] | Recording]:
        for path in self.parts or (self.path,):
            if not path.exists():
                raise BadManifest(f"{path} does not exist")
            read = _read_folder if path.is_dir() else _read_file
            try:
                yield from read(path, only_count=only_count)
            except BadManifest:
                raise
            except (OSError, ValueError, csv.Error) as error:  # not readable; not UTF-8; no Parquet
                raise BadManifest(f"{path}: {error}") from error


def find_manifests(paths: Iterable[Path], fields: Fields | None = None) -> list[Manifest]:
    """The manifests at these paths, each with its own name. A folder of Parquet files has one for each set in it."""
    found: dict[str, list[Path]] = {}
    for path in paths:
        tables = sorted(path.rglob("*.parquet")) if path.is_dir() else [path] if path.suffix == ".parquet" else []
        for table in tables:
            found.setdefault(f"{table.resolve().parent.name} {SHARD.sub('', table.stem)}", []).append(table)
        if not tables:
            generic = path.stem in ("manifest", "metadata", "samples")  # names that say nothing
            name = path.resolve().parent.name if generic else path.resolve().stem
            found.setdefault(name if name not in found else str(path), []).append(path)
    return [Manifest(name, parts[0], fields or Fields(), tuple(parts)) for name, parts in found.items()]


def _read_folder(folder: Path, *, only_count: bool) -> Iterator[Mapping[str, Any] | Recording]:
    metadata = next((folder / name for name in METADATA if (folder / name).exists()), None)
    if metadata:
        yield from _read_file(metadata, only_count=only_count)
        return
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    said = [path for path in files if path.suffix.lower() in RECORDING_SUFFIXES and path.with_suffix(".txt").exists()]
    for path in said:
        text = "" if only_count else path.with_suffix(".txt").read_text("utf-8")
        yield Recording(path.relative_to(folder).as_posix(), path, " ".join(text.split()))
    if not said:
        raise BadManifest(
            f"{folder} has no recording with a .txt of the same name beside it, and none of {', '.join(METADATA)}"
        )


def _read_file(path: Path, *, only_count: bool) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, with the folder that its paths are relative to as "folder"."""
    readers = {".jsonl": _read_json, ".json": _read_json, ".csv": _read_table, ".tsv": _read_table}
    if path.suffix == ".parquet":
        rows = _read_parquet(path, only_count=only_count)
    elif path.suffix in readers:
        rows = readers[path.suffix](path)
    else:
        raise BadManifest(f"{path}: a manifest is a folder, or ends with {', '.join([*readers, '.parquet'])}")
    for row in rows:
        yield {**row, "folder": path.parent}


def _read_json(path: Path) -> Iterator[dict[str, Any]]:
    text = path.read_text("utf-8")
    if text.lstrip().startswith("["):
        try:
            entries = json.loads(text)
        except json.JSONDecodeError as error:
            raise BadManifest(f"{path}: {error}") from error
    else:
        entries = _read_lines(path, text.splitlines())
    for entry in entries:
        if not isinstance(entry, dict):
            raise BadManifest(f"{path}: {entry!r} is not an object")
        yield entry


def _read_lines(path: Path, lines: Iterable[str]) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise BadManifest(f"{path}, line {number}: {error}") from error


def _read_table(path: Path) -> Iterator[dict[str, Any]]:
    with path.open(encoding="utf-8-sig", newline="") as file:
        is_tabbed = path.suffix == ".tsv"  # whose quotation marks belong to the text, as in Common Voice
        reader = csv.DictReader(
            file, delimiter="\t" if is_tabbed else ",", quoting=csv.QUOTE_NONE if is_tabbed else csv.QUOTE_MINIMAL
        )
        for row in reader:
            yield {name: value for name, value in row.items() if name and value is not None}


def _read_parquet(path: Path, *, only_count: bool) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadManifest(f"{path}: Parquet needs the package pyarrow") from None
    with ParquetFile(path) as table:
        if only_count:
            yield from ({} for _ in range(table.metadata.num_rows))
            return
        for batch in table.iter_batches(batch_size=16):  # of whole recordings
            yield from batch.to_pylist()


def _read_row(row: Mapping[str, Any], where: str, fields: Fields) -> Recording:
    audio = _find(row, where, "audio", AUDIO if fields.audio is None else (fields.audio,))
    text = _find(row, where, "text", TEXT if fields.text is None else (fields.text,))
    if not isinstance(text, str):
        raise BadManifest(f"{where}: the text {text!r} is not a string")
    named = next((str(row[name]) for name in NAME if row.get(name)), None)
    if isinstance(audio, Mapping) and audio.get("bytes"):
        name, source = named or str(audio.get("path") or where), audio["bytes"]
    else:
        given = audio.get("path") if isinstance(audio, Mapping) else audio
        if not isinstance(given, str) or not given:
            raise BadManifest(f"{where}: the audio {audio!r} is neither a path nor bytes")
        name, source = named or given, _locate(given, row["folder"], where)
    duration = _number(row, where, "duration")
    return Recording(
        name, source, text, _number(row, where, "offset") or 0.0, duration, tuple(_read_words(row.get("words"), where))
    )


def _find(row: Mapping[str, Any], where: str, what: str, names: tuple[str, ...]) -> Any:
    for name in names:
        if row.get(name) is not None:
            return row[name]
    has = ", ".join(name for name in row if name != "folder")
    raise BadManifest(f"{where}: no field for the {what} ({' or '.join(names)}); its fields are {has}")


def _locate(given: str, folder: Path, where: str) -> Path:
    for path in (folder / given, folder / "clips" / given):
        if path.is_file():
            return path
    raise BadManifest(f"{where}: there is no file {folder / given}")


def _number(row: Mapping[str, Any], where: str, name: str) -> float | None:
    value = row.get(name)
    if value is None or value == "":
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = -1.0
    if not 0 <= number < float("inf"):
        raise BadManifest(f"{where}: {name} is {value!r}, which is no number of seconds")
    return number


def _read_words(given: Any, where: str) -> Iterator[Word]:
    if isinstance(given, str):  # in a table
        try:
            given = json.loads(given) if given else None
        except json.JSONDecodeError:
            raise BadManifest(f"{where}: words is {given!r}, which is no JSON") from None
    for word in given or ():
        try:
            yield Word(
                str(word["word"] if "word" in word else word["text"]), float(word["start"]), float(word["end"]), ()
            )
        except (KeyError, TypeError, ValueError):
            raise BadManifest(f"{where}: {word!r} in words is no object of word, start and end in seconds") from None
