"""The catalogue finds weights in the repository, at a path and in a real BentoML store, and says what to do if not."""

from __future__ import annotations

import dataclasses
import io
import re
import shutil
import socket
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import bentoml
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore

from parakeet_stt.engines import catalogue
from parakeet_stt.errors import StartupError

ROOT = Path(__file__).resolve().parents[2]
TINY = "parakeet-tdt-tiny"
V2 = "nvidia/parakeet-tdt-0.6b-v2"
V3 = "nvidia/parakeet-tdt-0.6b-v3"
WEIGHTS = b"weights"


@pytest.fixture
def bundled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "parakeet-tdt-tiny.nemo"
    path.write_bytes(WEIGHTS)
    entry = catalogue.CATALOGUE[TINY]
    monkeypatch.setitem(catalogue.CATALOGUE, TINY, dataclasses.replace(entry, bundled=path))
    return path


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """An empty BentoML store. BentoML reads BENTOML_HOME only once in a process, so its container is set."""
    monkeypatch.setenv("BENTOML_DO_NOT_TRACK", "True")
    folder = tmp_path / "models"
    folder.mkdir()
    BentoMLContainer.model_store.set(ModelStore(folder))
    yield folder
    BentoMLContainer.model_store.reset()


def put(tag: str, *, files: tuple[str, ...] = ("weights.nemo",), **metadata: Any) -> Path:
    """Put a model into the store; returns its folder there."""
    with bentoml.models.create(tag, metadata=metadata) as model:
        for name in files:
            Path(model.path, name).write_bytes(WEIGHTS)
    return Path(bentoml.models.get(tag).path)


def refusal(setting: str | None) -> str:
    """The one line that `setting` is refused with."""
    with pytest.raises(StartupError) as caught:
        catalogue.resolve(setting)
    assert "\n" not in caught.value.message
    return caught.value.message


def test_importing_the_catalogue_loads_no_engine_and_no_bentoml() -> None:
    code = "import sys, parakeet_stt.engines.catalogue; sys.exit(str({'torch', 'nemo', 'bentoml'} & set(sys.modules)))"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True)
    assert done.stderr.strip() == "set()"


def test_every_published_file_is_pinned_to_a_commit_and_a_checksum() -> None:
    known = (*catalogue.CATALOGUE.values(), *catalogue.DIARIZERS.values())
    published = [entry.published for entry in known if entry.published]
    assert len(published) == 6
    for file in published:
        assert re.fullmatch("[0-9a-f]{40}", file.revision)
        assert file.sha256 is None or re.fullmatch("[0-9a-f]{64}", file.sha256)
    assert all(
        entry.published.sha256 for name, entry in catalogue.CATALOGUE.items() if name in (V2, V3) and entry.published
    )


def test_v3_knows_the_25_languages_of_its_card_and_the_others_know_english() -> None:
    languages = {name: entry.languages for name, entry in catalogue.CATALOGUE.items()}
    assert languages["parakeet-tdt-tiny"] == languages[V2] == ("en",)
    assert languages["nvidia/parakeet-tdt_ctc-110m"] == languages["nvidia/parakeet-tdt-1.1b"] == ("en",)
    assert len(set(languages[V3])) == len(languages[V3]) == 25


@pytest.mark.parametrize("setting", [None, "", "parakeet-tdt-tiny"])
def test_no_setting_means_the_bundled_model_which_is_a_demo(setting: str | None, bundled: Path) -> None:
    source = catalogue.resolve(setting)
    assert (source.name, source.path, source.origin) == ("parakeet-tdt-tiny", bundled, "bundled")
    assert source.is_demo
    assert source.languages == ("en",)


def test_a_missing_bundled_model_says_where_it_should_be(bundled: Path) -> None:
    bundled.unlink()
    assert str(bundled) in refusal(None)


def test_a_path_is_served_under_the_name_of_its_file(tmp_path: Path) -> None:
    path = tmp_path / "My-Model.nemo"
    path.write_bytes(WEIGHTS)
    source = catalogue.resolve(str(path))
    assert (source.name, source.path, source.origin) == ("My-Model", path, "path")
    assert (source.languages, source.owned_by, source.sha256) == (("en",), "local", None)
    assert source.created == int(path.stat().st_mtime)
    assert not source.is_demo


def test_a_file_name_without_a_folder_is_a_path_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("here.nemo").write_bytes(WEIGHTS)
    assert catalogue.resolve("here.nemo").origin == "path"


def test_a_tilde_in_a_path_is_the_home_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "mine.nemo").write_bytes(WEIGHTS)
    assert catalogue.resolve("~/mine.nemo").path == tmp_path / "mine.nemo"


def test_diarizers_have_their_own_setting_and_name_their_licences(store: Path) -> None:
    assert {name: entry.licence for name, entry in catalogue.DIARIZERS.items()} == {
        "sortformer-tiny": "Apache-2.0",
        "nvidia/diar_streaming_sortformer_4spk-v2": "CC-BY-4.0",
        "nvidia/diar_streaming_sortformer_4spk-v2.1": "NVIDIA Open Model License",
    }
    assert catalogue.resolve_diarizer(None) is catalogue.resolve_diarizer("") is None
    found = catalogue.resolve_diarizer("sortformer-tiny")
    assert found is not None
    assert (found.path, found.origin) == (catalogue.DIARIZERS["sortformer-tiny"].bundled, "bundled")
    with pytest.raises(StartupError, match=r"^STT_DIARIZER='no-such' .*sortformer-tiny, nvidia/diar"):
        catalogue.resolve_diarizer("no-such")
    with pytest.raises(StartupError, match=r'run "python -m parakeet_stt fetch nvidia/diar_streaming.*STT_DIARIZER'):
        catalogue.resolve_diarizer("nvidia/diar_streaming_sortformer_4spk-v2")


def test_a_recognizer_is_no_diarizer_and_a_diarizer_no_recognizer() -> None:
    recognizer = str(catalogue.BUNDLED_FILE)
    with pytest.raises(StartupError, match="no Sortformer diarizer: set STT_DIARIZER"):
        catalogue.resolve_diarizer(recognizer)
    bundled = catalogue.DIARIZERS["sortformer-tiny"].bundled
    assert bundled is not None
    with pytest.raises(StartupError, match="no Parakeet-TDT model: set STT_MODEL"):
        catalogue.check_archive(bundled)


@pytest.mark.parametrize("setting", ["/no/such.nemo", "nvidia/parakeet-tdt-9b", "no-such-model", "Not a tag!"])
def test_an_unknown_setting_lists_what_can_be_set(setting: str, store: Path) -> None:
    message = refusal(setting)
    assert repr(setting) in message
    for name in catalogue.CATALOGUE:
        assert name in message


def test_a_folder_is_not_a_model_file(tmp_path: Path) -> None:
    assert "path of a .nemo file" in refusal(str(tmp_path))


def test_a_model_that_was_not_fetched_says_how_to_fetch_it(store: Path) -> None:
    assert refusal(V2) == (
        f'{V2} is not on this machine: run "python -m parakeet_stt fetch {V2}" where there is network, '
        "or set STT_MODEL to the path of a .nemo file"
    )


def test_a_fetched_model_is_found_under_its_catalogue_name(store: Path) -> None:
    folder = put("parakeet-tdt-0.6b-v3:one", model=V3, languages=["en", "fr"], sha256="ab", size_bytes=len(WEIGHTS))
    source = catalogue.resolve(V3)
    assert (source.name, source.path, source.origin) == (V3, folder / "weights.nemo", "store")
    assert (source.languages, source.sha256) == (("en", "fr"), "ab")
    assert (source.owned_by, source.created) == ("nvidia", catalogue.CATALOGUE[V3].created)
    assert not source.is_demo


def test_the_newest_version_is_served_unless_one_is_named(store: Path) -> None:
    put("parakeet-tdt-0.6b-v2:older", sha256="old")
    put("parakeet-tdt-0.6b-v2:newer", sha256="new")
    assert catalogue.resolve(V2).sha256 == "new"
    assert catalogue.resolve("parakeet-tdt-0.6b-v2").sha256 == "new"
    assert catalogue.resolve("parakeet-tdt-0.6b-v2:older").sha256 == "old"


def test_a_model_that_somebody_else_put_into_the_store_is_served_under_its_tag(store: Path) -> None:
    put("my-fine-tune:1")
    source = catalogue.resolve("my-fine-tune:1")
    assert (source.name, source.languages, source.owned_by) == ("my-fine-tune:1", ("en",), "local")
    assert source.sha256 is None
    assert source.created > 1_700_000_000


@pytest.mark.parametrize("files", [(), ("a.nemo", "b.nemo")])
def test_a_stored_model_holds_exactly_one_nemo_file(files: tuple[str, ...], store: Path) -> None:
    put("parakeet-tdt-0.6b-v2:odd", files=files)
    assert "bentoml models delete parakeet-tdt-0.6b-v2:odd" in refusal(V2)


def test_a_copy_that_was_cut_short_is_refused(store: Path) -> None:
    put("parakeet-tdt-0.6b-v2:short", size_bytes=len(WEIGHTS) + 1)
    assert "no complete .nemo file" in refusal(V2)


def test_a_tag_that_can_not_be_one_is_said_in_one_line(store: Path) -> None:
    assert "can't give 'a:b:c' (Invalid Tag a:b:c)" in refusal("a:b:c")


def test_a_store_that_is_broken_is_said_in_one_line(store: Path) -> None:
    folder = put("parakeet-tdt-0.6b-v2:odd")
    (folder / "model.yaml").unlink()
    assert "the BentoML store can't give 'parakeet-tdt-0.6b-v2'" in refusal(V2)


def test_nothing_reaches_for_the_network(store: Path, bundled: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise AssertionError("the network was used")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    catalogue.resolve(None)
    for setting in (V2, V3, "no-such-model", "nvidia/parakeet-tdt-9b"):
        refusal(setting)


def with_config(path: Path, config: str) -> Path:
    """An archive as far as the catalogue reads it."""
    with tarfile.open(path, "w") as archive:
        for name, text in (("./model_config.yaml", config), ("./model_weights.ckpt", "weights")):
            member = tarfile.TarInfo(name)
            member.size = len(text)
            archive.addfile(member, io.BytesIO(text.encode()))
    return path


def test_v3_by_its_path_and_under_any_tag_is_known_by_its_pieces(tmp_path: Path, store: Path) -> None:
    """It was taken for English, and `language=de` refused."""
    signs = "".join(f"- <|{language}|>\n" for language in catalogue.CATALOGUE[V3].languages)
    path = with_config(tmp_path / "mine.nemo", f"decoder:\n  vocab_size: 8192\ndurations: [0, 1]\nlabels:\n{signs}")
    source = catalogue.resolve(str(path))
    assert (source.name, source.languages) == ("mine", catalogue.CATALOGUE[V3].languages)
    assert source.longest_utterance_seconds == 10
    shutil.copy(path, put("somebodys-v3:1") / "weights.nemo")
    stored = catalogue.resolve("somebodys-v3:1")
    assert (stored.languages, stored.longest_utterance_seconds) == (source.languages, 10)
    others = with_config(tmp_path / "other.nemo", "decoder:\n  vocab_size: 8192\nlabels:\n- a\n")
    assert catalogue.resolve(str(others)).languages == ("en",)
    assert catalogue.resolve(str(others)).longest_utterance_seconds is None


def test_the_operator_says_the_languages_of_other_weights(tmp_path: Path) -> None:
    path = with_config(tmp_path / "mine.nemo", "decoder:\n  vocab_size: 1024\n")
    assert catalogue.resolve(str(path), ["de", "fr"]).languages == ("de", "fr")
