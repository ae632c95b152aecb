"""`parakeet fetch`: puts weights, of Parakeet or a diarizer, into the BentoML store, once. Nothing else downloads any.

A download is one file of one commit, by ordinary HTTP, and is refused unless its checksum is the one in the catalogue,
or the hub's where the catalogue has none.
"""

from __future__ import annotations

import hashlib
import os
import signal
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from parakeet_stt.cli.exits import Exit, require
from parakeet_stt.errors import StartupError, first_line

if TYPE_CHECKING:
    from parakeet_stt.engines.catalogue import CatalogueEntry, Kind, ModelSource, PublishedFile

SHA256_DIGITS = 64
VERSION_DIGITS = 12  # of the checksum: the same bytes always get the same version


class FetchError(Exception):
    """The model can't be fetched; the message is one line that says why."""


def fetch(
    name: Annotated[str, typer.Argument(metavar="MODEL", help="Name in the catalogue; `parakeet models` lists them.")],
    file: Annotated[Path | None, typer.Option("--from", metavar="FILE.nemo", help="Import this file, offline.")] = None,
) -> None:
    """Put published weights into the BentoML store, pinned and checked; STT_MODEL=MODEL then serves them."""
    os.environ.setdefault("BENTOML_DO_NOT_TRACK", "True")  # both before the libraries read them
    os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")
    from parakeet_stt.engines import catalogue

    # Importing parakeet_stt.engines has set the first to "1". huggingface_hub reads both when `download` imports it.
    os.environ["HF_HUB_OFFLINE"] = "0"
    # Where the hub offers Xet, a store in place of a file, and the store does not answer, a download hangs for minutes.
    os.environ["HF_HUB_DISABLE_XET"] = "1"
    known = {**catalogue.CATALOGUE, **catalogue.DIARIZERS}
    published = {one: entry for one, entry in known.items() if entry.published}
    if name not in published:
        raise typer.BadParameter(f"{name!r} can't be fetched; choose from {', '.join(map(repr, published))}")
    require("bentoml", "huggingface_hub", extras=("engine", "serve"))
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that SIGTERM, too, leaves nothing behind
    try:
        if file is None:
            download_into_store(published[name])
        else:
            import_file(published[name], file)
    except FetchError as exc:
        print(f"{name} was not fetched: {exc}", file=sys.stderr)
        raise typer.Exit(Exit.FAILED) from None
    except KeyboardInterrupt:
        print(f"{name} was not fetched: interrupted", file=sys.stderr)
        raise typer.Exit(Exit.INTERRUPTED) from None
    print(f"{kind_of(published[name]).setting}={name}")


def download_into_store(entry: CatalogueEntry) -> None:
    """Download `entry` into the store, unless the store has some version of it."""
    assert entry.published
    if stored := find_stored(entry):
        print(f"{entry.name} is already in the BentoML store: {stored.path}")
        return
    try:
        with tempfile.TemporaryDirectory(prefix="fetch-model-") as folder:
            file, expected = download(entry.published, Path(folder))
            sha256 = compute_checksum(file)
            if sha256 != expected:
                raise FetchError(f"the download's sha256 is {sha256}, not {expected}")
            store(entry, file, sha256, source=f"https://huggingface.co/{entry.published.repository}")
    except OSError as exc:
        raise FetchError(f"{first_line(exc)} (TMPDIR and BENTOML_HOME choose where the files go)") from exc


def import_file(entry: CatalogueEntry, file: Path) -> None:
    """Put the operator's own file into the store under `entry`'s name, unless the store has the same bytes."""
    assert entry.published
    try:
        sha256 = compute_checksum(file)
        stored = find_stored(entry)
        if stored and stored.sha256 == sha256:
            print(f"{entry.name} is already in the BentoML store: {stored.path}")
            return
        if entry.published.sha256 not in (None, sha256):
            print(f"note: {file} is not the published file, whose sha256 is {entry.published.sha256}", file=sys.stderr)
        store(entry, file, sha256, source=f"file {file.name}")
    except OSError as exc:
        raise FetchError(first_line(exc)) from exc


def kind_of(entry: CatalogueEntry) -> Kind:
    """What the weights are for."""
    from parakeet_stt.engines import catalogue

    return catalogue.DIARIZER if entry.name in catalogue.DIARIZERS else catalogue.RECOGNIZER


def find_stored(entry: CatalogueEntry) -> ModelSource | None:
    """The newest version in the store; None if there is none, or it is damaged."""
    from parakeet_stt.engines import catalogue

    try:
        return catalogue.resolve(entry.name, kind=kind_of(entry))
    except StartupError:
        return None


def download(published: PublishedFile, folder: Path) -> tuple[Path, str]:
    """Download the pinned commit's file into `folder`, with a progress bar on standard error.

    Returns it and the checksum that it has to have: the catalogue's, or if that has none, the hub's.
    """
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError

    repository, name, revision = published.repository, published.file_name, published.revision
    url = hf_hub_url(repository, name, revision=revision)
    try:
        # This request comes first because it fails at once without network; the download would retry for 23 s.
        etag = get_hf_file_metadata(url).etag or ""
        # The hub's etag of a large file is its sha256. A mirror's may be another; then only the download is checked.
        offered = etag if len(etag) == SHA256_DIGITS else None
        expected = published.sha256 or offered
        if expected is None:
            raise FetchError(f"{url} names no sha256, and none is known")
        if offered not in (None, expected):
            raise FetchError(f"{url} offers a file with sha256 {offered}, not {expected}")
        return Path(hf_hub_download(repository, name, revision=revision, local_dir=folder)), expected
    except FetchError:
        raise
    except HfHubHTTPError as exc:
        answer = exc.response
        reason = exc.server_message or answer.headers.get("x-error-message") or answer.reason_phrase
        raise FetchError(f"{url} can't be downloaded: the hub answers {answer.status_code}, {reason}") from exc
    except Exception as exc:  # httpx, Xet and the file system raise many types
        raise FetchError(
            f"{url} can't be downloaded: {first_line(exc)} (without network, bring the file and add --from {name})"
        ) from exc


def store(entry: CatalogueEntry, file: Path, sha256: str, *, source: str) -> None:
    """Copy `file` into the BentoML store as a new version of `entry`. Metadata: its origin, languages and size."""
    assert entry.published
    import bentoml
    from bentoml.exceptions import BentoMLException

    tag = f"{entry.tag}:{sha256[:VERSION_DIGITS]}"
    origin = {"model": entry.name, "source": source, "sha256": sha256}
    if sha256 == entry.published.sha256:
        origin["revision"] = entry.published.revision
    metadata = {**origin, "languages": list(entry.languages), "size_bytes": file.stat().st_size}
    with suppress(BentoMLException):  # the tag rarely exists: for a damaged copy of the same bytes, or an older version
        if file.resolve().is_relative_to(Path(bentoml.models.get(tag).path).resolve()):
            raise FetchError(f"{file} is in the store already: set {kind_of(entry).setting}={tag}")
        bentoml.models.delete(tag)
    try:
        with bentoml.models.create(tag, labels=origin, metadata=metadata) as model:
            # Only its owner can read BentoML's temporary folder, and so the copy; another user may run the service.
            Path(model.path).chmod(0o755)
            # BentoML copies its folder into the store and follows links: a link saves one copy of the gigabytes.
            Path(model.path, entry.published.file_name).symlink_to(file.resolve())
    except BaseException:  # BentoML removes an incomplete copy after an Exception, but not after Ctrl-C
        with suppress(BentoMLException):
            bentoml.models.delete(tag)
        raise
    print(f"{entry.name} is in the BentoML store as {tag}, sha256 {sha256}")


def compute_checksum(file: Path) -> str:
    """The file's sha256 in hexadecimal."""
    with file.open("rb") as opened:
        return hashlib.file_digest(opened, "sha256").hexdigest()
