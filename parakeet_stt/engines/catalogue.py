"""Which Parakeet weights exist (`models/catalogue.toml`), and where they are on this machine."""

from __future__ import annotations

import dataclasses
import json
import os
import tarfile
import tomllib
from dataclasses import dataclass
from datetime import UTC, datetime, time
from pathlib import Path
from typing import Any, Literal

from parakeet_stt.errors import StartupError

_PACKAGE = Path(__file__).parents[1]
# Beside the package in a checkout and in a Bento, inside it where a wheel is installed.
MODELS = next(
    (folder for folder in (_PACKAGE.parent / "models", _PACKAGE / "models") if (folder / "catalogue.toml").is_file()),
    _PACKAGE.parent / "models",
)
LOCAL_OWNER = "local"  # `owned_by` of weights that the operator brought
DEFAULT_LANGUAGES = ("en",)  # of weights that are not in the catalogue


@dataclass(frozen=True, slots=True)
class PublishedFile:
    """One file of one commit on the Hugging Face hub, so that everybody who fetches it gets the same bytes."""

    repository: str
    file_name: str
    revision: str
    sha256: str


@dataclass(frozen=True, slots=True)
class CatalogueEntry:
    """Weights that can be served by name.

    created: unix time of their publication. licence: SPDX identifier. bundled: path in this repository; None if they
    are not in it. published: where they can be fetched; None if they can't.
    """

    name: str
    languages: tuple[str, ...]
    owned_by: str
    created: int
    licence: str
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
    is_demo: the bundled tiny model, which is useless on recordings of people.
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


def write_source(source: ModelSource, file: Path) -> None:
    """Write down what was found, for the service's other processes: in a Bento they would not find it themselves."""
    file.write_text(json.dumps(dataclasses.asdict(source), default=str))


def read_source(file: Path) -> ModelSource:
    """What `write_source` has written."""
    written = json.loads(file.read_text())
    written.update(path=Path(written["path"]), languages=tuple(written["languages"]))
    return ModelSource(**written)


def read_catalogue(folder: Path) -> dict[str, CatalogueEntry]:
    """The entries of `catalogue.toml` in this folder, by name."""
    described = tomllib.loads((folder / "catalogue.toml").read_text("utf-8"))["model"]
    entries = [
        CatalogueEntry(
            name=one["name"],
            languages=tuple(one["languages"]),
            owned_by=one["owned_by"],
            created=int(datetime.combine(one["released"], time(tzinfo=UTC)).timestamp()),
            licence=one["licence"],
            bundled=folder / one["bundled"] if "bundled" in one else None,
            published=PublishedFile(**one["published"]) if "published" in one else None,
        )
        for one in described
    ]
    return {entry.name: entry for entry in entries}


CATALOGUE = read_catalogue(MODELS)
BUNDLED_FILE = next(entry.bundled for entry in CATALOGUE.values() if entry.bundled)


def resolve(setting: str | None) -> ModelSource:
    """Find the weights that STT_MODEL asks for on this machine.

    setting: a catalogue name, the path of a .nemo file, or a BentoML store tag `name[:version]`, the newest version
    unless one is given. None or empty: the bundled tiny model.
    Raises StartupError, in one line that says what to do, if they are not here.
    """
    entry = CATALOGUE.get(setting) if setting else next(one for one in CATALOGUE.values() if one.bundled)
    if entry is not None:
        return _bundled(entry, entry.bundled) if entry.bundled else _fetched(entry)
    assert setting
    return _at_path(setting) if os.sep in setting or setting.endswith(".nemo") else _under_tag(setting)


def check_archive(path: Path) -> None:
    """Check that the file can be a transducer with durations, without unpacking it.

    Raises StartupError, in one line, if it can't be one.
    """
    try:
        with tarfile.open(path) as archive:
            names = {name.rpartition("/")[2]: name for name in archive.getnames()}
            config = archive.extractfile(names["model_config.yaml"])
            assert config is not None
            known = {"model_weights.ckpt"} <= names.keys() and b"durations" in config.read()
    except (tarfile.TarError, OSError, KeyError, EOFError):
        known = False
    if not known:
        raise StartupError(f"{path} is no Parakeet-TDT model: set STT_MODEL to a complete .nemo file of one")


def read_ahead(path: Path) -> None:
    """Have the system read the file into memory in the background, while the libraries are imported."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _bundled(entry: CatalogueEntry, file: Path) -> ModelSource:
    if not file.is_file():
        raise StartupError(
            f"the bundled model {file} is missing: restore it from the repository, or set STT_MODEL to another model"
        )
    return ModelSource(entry.name, file, entry.languages, entry.owned_by, entry.created, origin="bundled", is_demo=True)


def _fetched(entry: CatalogueEntry) -> ModelSource:
    model = _in_store(entry.tag)
    if model is None:
        raise StartupError(
            f'{entry.name} is not on this machine: run "python -m parakeet_stt fetch {entry.name}" where there is '
            "network, or set STT_MODEL to the path of a .nemo file"
        )
    return _stored(entry.name, model)


def _at_path(setting: str) -> ModelSource:
    path = Path(setting).expanduser()
    if not path.is_file():
        raise _unknown(setting)
    changed = int(path.stat().st_mtime)
    return ModelSource(path.stem, path, DEFAULT_LANGUAGES, LOCAL_OWNER, changed, origin="path")


def _under_tag(setting: str) -> ModelSource:
    model = _in_store(setting)
    if model is None:
        raise _unknown(setting)
    return _stored(setting, model)


def _unknown(setting: str) -> StartupError:
    return StartupError(
        f"STT_MODEL={setting!r} is neither a file nor a model in the BentoML store: set it to one of "
        f"{', '.join(CATALOGUE)}, to a tag in that store, or to the path of a .nemo file"
    )


def _in_store(tag: str) -> Any | None:
    """The BentoML model under `tag`, None if there is none."""
    import bentoml  # two seconds, which only those who use the store pay
    from bentoml.exceptions import BentoMLException, NotFound

    try:
        return bentoml.models.get(tag)
    except (NotFound, ValueError):  # ValueError: no model can have such a tag
        return None
    except (BentoMLException, OSError) as exc:
        first_line = next(iter(str(exc).splitlines()), type(exc).__name__)
        raise StartupError(
            f"the BentoML store can't give {tag!r} ({first_line}): set STT_MODEL to another tag, or to the path of a "
            ".nemo file"
        ) from exc


def _stored(name: str, model: Any) -> ModelSource:
    """A model of the store, with what cli/fetch.py recorded; other models have no such records."""
    recorded = model.info.metadata
    files = sorted(Path(model.path).glob("*.nemo"))
    # The size tells a copy that was cut short. Reading gigabytes at every start, for the checksum, would take seconds.
    if len(files) != 1 or files[0].stat().st_size != recorded.get("size_bytes", files[0].stat().st_size):
        raise StartupError(
            f'{model.tag} in the BentoML store is damaged, it holds no complete .nemo file: run "bentoml models delete '
            f'{model.tag}" and fetch it again'
        )
    entry = CATALOGUE.get(recorded.get("model", ""))
    return ModelSource(
        name=name,
        path=files[0],
        languages=tuple(recorded.get("languages", DEFAULT_LANGUAGES)),
        owned_by=entry.owned_by if entry else LOCAL_OWNER,
        created=entry.created if entry else int(model.creation_time.timestamp()),
        origin="store",
        tag=str(model.tag),
        sha256=recorded.get("sha256"),
    )
