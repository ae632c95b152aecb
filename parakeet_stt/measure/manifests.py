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
import io
import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath
from typing import Any, BinaryIO

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
    with path.open("rb") as file:
        for row in read_rows(file, str(path), only_count=only_count):
            yield {**row, "folder": path.parent}


def read_rows(file: BinaryIO, name: str, *, only_count: bool = False) -> Iterator[Mapping[str, Any]]:
    """The rows of a table, one after another. name: of the file, whose suffix tells its form. Raises BadManifest.

    At the end the file is closed, unless it is Parquet.
    """
    suffix = PurePath(name).suffix
    if suffix == ".parquet":
        return _read_parquet(file, name, only_count=only_count)
    if suffix not in TABLES:
        raise BadManifest(f"{name}: a manifest is a folder, or ends with {', '.join([*TABLES, '.parquet'])}")
    return TABLES[suffix](file, name)


def _read_json(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    with io.TextIOWrapper(file, "utf-8") as text:
        first = next((line for line in text if line.strip()), "")
        if first.lstrip().startswith("["):
            try:
                entries = json.loads(first + text.read())
            except json.JSONDecodeError as error:
                raise BadManifest(f"{name}: {error}") from error
        else:
            text.seek(0)
            entries = _read_lines(text, name)
        for entry in entries:
            if not isinstance(entry, dict):
                raise BadManifest(f"{name}: {entry!r} is not an object")
            yield entry


def _read_lines(lines: Iterable[str], name: str) -> Iterator[Any]:
    for number, line in enumerate(lines, start=1):
        if line.strip():
            try:
                yield json.loads(line)
            except json.JSONDecodeError as error:
                raise BadManifest(f"{name}, line {number}: {error}") from error


def _read_table(file: BinaryIO, name: str) -> Iterator[dict[str, Any]]:
    is_tabbed = name.endswith(".tsv")  # whose quotation marks belong to the text, as in Common Voice
    with io.TextIOWrapper(file, "utf-8-sig", newline="") as text:
        reader = csv.DictReader(
            text,
            delimiter="\t" if is_tabbed else ",",
            quoting=csv.QUOTE_NONE if is_tabbed else csv.QUOTE_MINIMAL,
        )
        for row in reader:
            yield {name: value for name, value in row.items() if name and value is not None}


TABLES = {".jsonl": _read_json, ".json": _read_json, ".csv": _read_table, ".tsv": _read_table}


def _read_parquet(file: BinaryIO, name: str, *, only_count: bool) -> Iterator[dict[str, Any]]:
    try:
        from pyarrow.parquet import ParquetFile
    except ImportError:
        raise BadManifest(f"{name}: Parquet needs the package pyarrow") from None
    with ParquetFile(file) as table:
        if only_count:
            yield from ({} for _ in range(table.metadata.num_rows))
            return
        for batch in table.iter_batches(batch_size=16):  # of whole recordings
            yield from batch.to_pylist()


def _read_row(row: Mapping[str, Any], where: str, fields: Fields) -> Recording:
    name, audio = find_audio(row, where, fields)
    text = _find(row, where, "text", TEXT if fields.text is None else (fields.text,))
    if not isinstance(text, str):
        raise BadManifest(f"{where}: the text {text!r} is not a string")
    source = audio if isinstance(audio, bytes) else _locate(audio, row["folder"], where)
    offset, duration = find_part(row, where)
    return Recording(name, source, text, offset, duration, tuple(_read_words(row.get("words"), where)))


def find_audio(row: Mapping[str, Any], where: str, fields: Fields) -> tuple[str, str | bytes]:
    """The recording's name in a row, and its path as it is written there, or its bytes. Raises BadManifest."""
    audio = _find(row, where, "audio", AUDIO if fields.audio is None else (fields.audio,))
    named = next((str(row[name]) for name in NAME if row.get(name)), None)
    if isinstance(audio, Mapping) and audio.get("bytes"):
        return named or str(audio.get("path") or where), audio["bytes"]
    given = audio.get("path") if isinstance(audio, Mapping) else audio
    if not isinstance(given, str) or not given:
        raise BadManifest(f"{where}: the audio {audio!r} is neither a path nor bytes")
    return named or given, given


def find_part(row: Mapping[str, Any], where: str) -> tuple[float, float | None]:
    """Offset and duration in a row, in seconds; a duration of None lasts to the end. Raises BadManifest."""
    return _number(row, where, "offset") or 0.0, _number(row, where, "duration")


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
