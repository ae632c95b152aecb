"""Which weights exist, Parakeet's and diarizers' (`models/catalogue.toml`), and where they are on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import tarfile
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any, Literal

from parakeet_stt.errors import StartupError, first_line

_PACKAGE = Path(__file__).parents[1]
# Beside the package in a checkout and in a Bento, inside it where a wheel is installed.
MODELS = next(
    (folder for folder in (_PACKAGE.parent / "models", _PACKAGE / "models") if (folder / "catalogue.toml").is_file()),
    _PACKAGE.parent / "models",
)
LOCAL_OWNER = "local"  # `owned_by` of weights that the operator brought
DEFAULT_LANGUAGES = ("en",)  # of weights that are not in the catalogue
_DAMAGED = (tarfile.TarError, OSError, KeyError, EOFError)


@dataclass(frozen=True, slots=True)
class Kind:
    """What weights are for. table: of the catalogue. setting: that chooses them. network: what a file of them holds.

    mark: what stands in the configuration of every such file.
    """

    table: str
    setting: str
    network: str
    mark: bytes


RECOGNIZER = Kind("model", "STT_MODEL", "Parakeet-TDT model", b"durations")
DIARIZER = Kind("diarizer", "STT_DIARIZER", "Sortformer diarizer", b"SortformerEncLabelModel")


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of one commit on the Hugging Face hub, so that everybody who fetches it gets the same bytes.

    sha256: None where no checksum is known but the hub's own.
    """

    repository: str
    file_name: str
    revision: str
    sha256: str | None = None


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """Weights that can be served by name.

    created: unix time of their publication; 0 if that is not known. licence: SPDX identifier, or its name if it has
    none. pieces: of the tokenizer, where its languages can be told by them. longest_utterance_seconds: unless the
    operator says otherwise; None for the service's own default. bundled: path in this repository; None if they are not
    in it. published: where they can be fetched; None if they can't.
    """

    name: str
    languages: tuple[str, ...]
    owned_by: str
    created: int
    licence: str
    pieces: int | None
    longest_utterance_seconds: float | None
    bundled: Path | None
    published: PublishedFile | None

    @property
    def tag(self) -> str:
        """The model's name in the BentoML store, where a slash is not allowed."""
        return self.name.rpartition("/")[2]


@dataclass(frozen=True, slots=True)
class ModelSource:
    """Weights that are on this machine.

    name: as callers see it in /v1/models. path: the .nemo file. created: unix time.
    tag, sha256: in the BentoML store, and as recorded when the file was put there; None for other files.
    is_demo: the bundled tiny model, which is useless on recordings of people. longest_utterance_seconds: as in the
    catalogue.
    """

    name: str
    path: Path
    languages: tuple[str, ...]
    owned_by: str
    created: int
    origin: Literal["bundled", "path", "store"]
    tag: str | None = None
    sha256: str | None = None
    is_demo: bool = False
    longest_utterance_seconds: float | None = None


def write_source(source: ModelSource, file: Path) -> None:
    """Write down what was found, for the service's other processes: in a Bento they would not find it themselves."""
    file.write_text(json.dumps(dataclasses.asdict(source), default=str))


def read_source(file: Path) -> ModelSource:
    """What `write_source` has written."""
    written = json.loads(file.read_text())
    written.update(path=Path(written["path"]), languages=tuple(written["languages"]))
    return ModelSource(**written)


def read_catalogue(folder: Path, kind: Kind = RECOGNIZER) -> dict[str, CatalogueEntry]:
    """The entries of this kind in `catalogue.toml` in this folder, by name."""
    described = tomllib.loads((folder / "catalogue.toml").read_text("utf-8"))[kind.table]
    entries = [
        CatalogueEntry(
            name=one["name"],
            languages=tuple(one.get("languages", ())),
            owned_by=one["owned_by"],
            created=int(datetime.combine(one["released"], time(tzinfo=UTC)).timestamp()) if "released" in one else 0,
            licence=one["licence"],
            pieces=one.get("pieces"),
            longest_utterance_seconds=one.get("longest_utterance_seconds"),
            bundled=folder / one["bundled"] if "bundled" in one else None,
            published=PublishedFile(**one["published"]) if "published" in one else None,
        )
        for one in described
    ]
    return {entry.name: entry for entry in entries}


CATALOGUE = read_catalogue(MODELS)
DIARIZERS = read_catalogue(MODELS, DIARIZER)
BUNDLED_FILE = next(entry.bundled for entry in CATALOGUE.values() if entry.bundled)


def resolve(setting: str | None, languages: Sequence[str] = (), kind: Kind = RECOGNIZER) -> ModelSource:
    """Find the weights that STT_MODEL, or another kind's setting, asks for on this machine.

    languages: that STT_LANGUAGES names; none to take those that are known of the weights.

    setting: a catalogue name, the path of a .nemo file, or a BentoML store tag `name[:version]`, the newest version
    unless one is given. None or empty: the bundled tiny model.
    Raises StartupError, in one line that says what to do, if they are not here.
    """
    found = _find(setting, kind)
    return dataclasses.replace(found, languages=tuple(languages)) if languages else found


def _find(setting: str | None, kind: Kind) -> ModelSource:
    known = _known(kind)
    entry = known.get(setting) if setting else next(one for one in known.values() if one.bundled)
    if entry is not None:
        return _bundled(entry, entry.bundled) if entry.bundled else _fetched(entry, kind)
    assert setting
    return _at_path(setting, kind) if os.sep in setting or setting.endswith(".nemo") else _under_tag(setting, kind)


def resolve_diarizer(setting: str | None) -> ModelSource | None:
    """Find and check the weights that STT_DIARIZER asks for; None or empty: none. Raises as `resolve`."""
    if not setting:
        return None
    source = resolve(setting, kind=DIARIZER)
    check_archive(source.path, DIARIZER)
    return source


def check_archive(path: Path, kind: Kind = RECOGNIZER) -> None:
    """Check that the file can be of this kind, such as a transducer with durations, without unpacking it.

    Raises StartupError, in one line, if it can't be one.
    """
    try:
        known = kind.mark in _read_config(path)
    except _DAMAGED:
        known = False
    if not known:
        raise StartupError(f"{path} is no {kind.network}: set {kind.setting} to a complete .nemo file of one")


def read_ahead(path: Path) -> None:
    """Have the system read the file into memory in the background, while the libraries are imported."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _known(kind: Kind) -> dict[str, CatalogueEntry]:
    return DIARIZERS if kind == DIARIZER else CATALOGUE


def _bundled(entry: CatalogueEntry, file: Path) -> ModelSource:
    if not file.is_file():
        raise StartupError(
            f"the bundled model {file} is missing: restore it from the repository, or set STT_MODEL to another model"
        )
    return ModelSource(entry.name, file, entry.languages, entry.owned_by, entry.created, origin="bundled", is_demo=True)


def _fetched(entry: CatalogueEntry, kind: Kind) -> ModelSource:
    model = _in_store(entry.tag, kind)
    if model is None:
        raise StartupError(
            f'{entry.name} is not on this machine: run "python -m parakeet_stt fetch {entry.name}" where there is '
            f"network, or set {kind.setting} to the path of a .nemo file"
        )
    return _stored(entry.name, model, entry)


def _at_path(setting: str, kind: Kind) -> ModelSource:
    path = Path(setting).expanduser()
    if not path.is_file():
        raise _unknown(setting, kind)
    changed = int(path.stat().st_mtime)
    like = _entry_of(path)
    languages, longest = (like.languages, like.longest_utterance_seconds) if like else (DEFAULT_LANGUAGES, None)
    return ModelSource(
        path.stem, path, languages, LOCAL_OWNER, changed, origin="path", longest_utterance_seconds=longest
    )


def _entry_of(path: Path) -> CatalogueEntry | None:
    """The entry whose pieces an archive has: as many, and a sign for each of its languages."""
    try:
        config = _read_config(path)
    except _DAMAGED:
        return None  # `check_archive` says what is wrong
    count = re.search(rb"^  vocab_size: (\d+)$", config, re.MULTILINE)
    for entry in CATALOGUE.values():
        signs = [f"<|{language}|>".encode() for language in entry.languages]
        if count and entry.pieces == int(count[1]) and all(sign in config for sign in signs):
            return entry
    return None


def _read_config(path: Path) -> bytes:
    with tarfile.open(path) as archive:
        names = {name.rpartition("/")[2]: name for name in archive.getnames()}
        if "model_weights.ckpt" not in names:
            raise KeyError("model_weights.ckpt")
        config = archive.extractfile(names["model_config.yaml"])
        assert config is not None
        return config.read()


def _under_tag(setting: str, kind: Kind) -> ModelSource:
    model = _in_store(setting, kind)
    if model is None:
        raise _unknown(setting, kind)
    return _stored(setting, model, _known(kind).get(model.info.metadata.get("model", "")))


def _unknown(setting: str, kind: Kind) -> StartupError:
    return StartupError(
        f"{kind.setting}={setting!r} is neither a file nor a model in the BentoML store: set it to one of "
        f"{', '.join(_known(kind))}, to a tag in that store, or to the path of a .nemo file"
    )


def _in_store(tag: str, kind: Kind) -> Any | None:
    """The BentoML model under `tag`, None if there is none."""
    import bentoml  # two seconds, which only those who use the store pay
    from bentoml.exceptions import BentoMLException, NotFound

    try:
        return bentoml.models.get(tag)
    except (NotFound, ValueError):  # ValueError: no model can have such a tag
        return None
    except (BentoMLException, OSError) as exc:
        raise StartupError(
            f"the BentoML store can't give {tag!r} ({first_line(exc)}): set {kind.setting} to another tag, or to the "
            "path of a .nemo file"
        ) from exc


def _stored(name: str, model: Any, entry: CatalogueEntry | None) -> ModelSource:
    """A model of the store, with what cli/fetch.py recorded; other models have no such records."""
    recorded = model.info.metadata
    files = sorted(Path(model.path).glob("*.nemo"))
    # The size tells a copy that was cut short. Reading gigabytes at every start, for the checksum, would take seconds.
    if len(files) != 1 or files[0].stat().st_size != recorded.get("size_bytes", files[0].stat().st_size):
        raise StartupError(
            f'{model.tag} in the BentoML store is damaged, it holds no complete .nemo file: run "bentoml models delete '
            f'{model.tag}" and fetch it again'
        )
    like = entry or _entry_of(files[0])
    return ModelSource(
        name=name,
        path=files[0],
        languages=tuple(recorded.get("languages", like.languages if like else DEFAULT_LANGUAGES)),
        owned_by=entry.owned_by if entry else LOCAL_OWNER,
        created=(entry and entry.created) or int(model.creation_time.timestamp()),
        origin="store",
        tag=str(model.tag),
        sha256=recorded.get("sha256"),
        longest_utterance_seconds=like.longest_utterance_seconds if like else None,
    )
