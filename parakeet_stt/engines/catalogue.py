"""Knows which Parakeet weights exist and where they lie on this machine. Does not load them, nor use the network."""

from __future__ import annotations

import os
import tarfile
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from parakeet_stt.errors import StartupError

BUNDLED_FILE = Path(__file__).parents[2] / "models" / "parakeet-tdt-tiny" / "parakeet-tdt-tiny.nemo"
LOCAL_OWNER = "local"  # `owned_by` of weights that the operator brought
DEFAULT_LANGUAGES = ("en",)  # of weights that nothing is recorded about
# The 25 of v3's card, in its order. It detects the language itself.
# fmt: off
EUROPEAN_LANGUAGES = (
    "en", "es", "fr", "de", "bg", "hr", "cs", "da", "nl", "et", "fi", "el", "hu",
    "it", "lv", "lt", "mt", "pl", "pt", "ro", "sk", "sl", "sv", "ru", "uk",
)
# fmt: on


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

    created: unix time of their publication. published: where they can be fetched; None for those in this repository.
    """

    name: str
    languages: tuple[str, ...]
    owned_by: str
    created: int
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


def _midnight(year: int, month: int, day: int) -> int:
    return int(datetime(year, month, day, tzinfo=UTC).timestamp())


DEMO = CatalogueEntry(
    name="parakeet-tdt-tiny",
    languages=("en",),
    owned_by="parakeet-stt",
    created=_midnight(2026, 11, 22),
    published=None,
)
# Revisions and checksums were taken from public code that pins the same file, several unrelated projects agreeing on
# each pair, and not from the hub itself. Dates are the release dates of the model cards.
V2 = CatalogueEntry(
    name="nvidia/parakeet-tdt-0.6b-v2",
    languages=("en",),
    owned_by="nvidia",
    created=_midnight(2025, 5, 1),
    published=PublishedFile(
        repository="nvidia/parakeet-tdt-0.6b-v2",
        file_name="parakeet-tdt-0.6b-v2.nemo",
        revision="ae9ad07059c7c739ffaf932226a8fe64ae2620b0",
        sha256="d99e39955c9d3d0350d8fb7c75e40c64a2b2eaeb003883d7c941fd2e8747b28c",
    ),
)
V3 = CatalogueEntry(
    name="nvidia/parakeet-tdt-0.6b-v3",
    languages=EUROPEAN_LANGUAGES,
    owned_by="nvidia",
    created=_midnight(2025, 8, 14),
    published=PublishedFile(
        repository="nvidia/parakeet-tdt-0.6b-v3",
        file_name="parakeet-tdt-0.6b-v3.nemo",
        revision="541d1f99c6b0c3cd0b11a95167540bb8edefd82b",
        sha256="3cbdc85877e668ca7b82d0d56770eb1fac76691f55d6b97545e8d61ca588d10d",
    ),
)
CATALOGUE = {entry.name: entry for entry in (DEMO, V2, V3)}


def resolve(setting: str | None) -> ModelSource:
    """Find the weights that STT_MODEL asks for on this machine.

    setting: a catalogue name, the path of a .nemo file, or a BentoML store tag `name[:version]`, the newest version
    unless one is given. None or empty: the bundled tiny model.
    Raises StartupError, in one line that says what to do, if they are not here.
    """
    if not setting:
        return _bundled()
    entry = CATALOGUE.get(setting)
    if entry is None:
        return _at_path(setting) if os.sep in setting or setting.endswith(".nemo") else _under_tag(setting)
    return _bundled() if entry.published is None else _fetched(entry)


def check_archive(path: Path) -> None:
    """Look whether the file can be a transducer with durations, without unpacking it.

    Raises StartupError, in one line, if it can't.
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
    """Ask the system to bring the file into memory in the background, while the libraries are imported."""
    if hasattr(os, "posix_fadvise"):  # not on macOS
        with path.open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_WILLNEED)


def _bundled() -> ModelSource:
    if not BUNDLED_FILE.is_file():
        raise StartupError(
            f"the bundled model {BUNDLED_FILE} is missing: restore it from the repository, or set STT_MODEL to "
            "another model"
        )
    return ModelSource(
        DEMO.name, BUNDLED_FILE, DEMO.languages, DEMO.owned_by, DEMO.created, origin="bundled", is_demo=True
    )


def _fetched(entry: CatalogueEntry) -> ModelSource:
    model = _in_store(entry.tag)
    if model is None:
        raise StartupError(
            f'{entry.name} is not on this machine: run "python scripts/fetch_model.py {entry.name}" where there is '
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
    """What scripts/fetch_model.py recorded with `model`; less of it where somebody else put the model there."""
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
