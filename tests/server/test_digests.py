"""What a service is made of has a digest each: one byte more or less, and it is another one."""

from __future__ import annotations

import hashlib
import shutil
import subprocess
from pathlib import Path

import pytest
from omegaconf import OmegaConf

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.server import digests
from parakeet_stt.server.digests import Digests
from tests.conftest import ROOT

MODEL = BUNDLED_FILE.relative_to(ROOT)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of what the digests are of, in another folder."""
    folder = tmp_path / "elsewhere"
    for path in (*digests.source_files(ROOT), ROOT / digests.LOCK, BUNDLED_FILE):
        copy = folder / path.relative_to(ROOT)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(path, copy)
    return folder


def made_of(folder: Path) -> Digests:
    return digests.compute_digests(folder, folder / MODEL)


def changed(before: Digests, after: Digests) -> set[str]:
    return {name for name in Digests.__dataclass_fields__ if getattr(before, name) != getattr(after, name)}


def test_a_copy_in_another_folder_is_made_of_the_same(checkout: Path) -> None:
    assert made_of(checkout) == made_of(ROOT)


@pytest.mark.parametrize(
    ("file", "part"),
    [
        ("service.py", "source"),
        ("parakeet_stt/server/http/middleware.py", "source"),
        ("parakeet_stt/engines/parakeet.py", "source"),
        (digests.LOCK, "lock"),
        (str(MODEL), "model"),
    ],
)
def test_one_changed_byte_changes_the_digest_of_its_part_and_no_other(checkout: Path, file: str, part: str) -> None:
    before = made_of(checkout)
    content = bytearray((checkout / file).read_bytes())
    content[len(content) // 2] ^= 1
    (checkout / file).write_bytes(content)
    assert changed(before, made_of(checkout)) == {part}


def test_a_file_more_or_renamed_is_another_source(checkout: Path) -> None:
    before = made_of(checkout)
    (checkout / "parakeet_stt" / "more.py").touch()
    with_more = made_of(checkout)
    (checkout / "parakeet_stt" / "more.py").rename(checkout / "parakeet_stt" / "renamed.py")
    renamed = made_of(checkout)
    assert len({before.source, with_more.source, renamed.source}) == 3


def test_what_python_leaves_behind_does_not_count(checkout: Path) -> None:
    before = made_of(checkout)
    (checkout / "parakeet_stt" / "__pycache__").mkdir()
    (checkout / "parakeet_stt" / "__pycache__" / "audio.cpython-311.pyc").write_bytes(b"compiled")
    assert made_of(checkout) == before


def test_a_diarizer_has_a_digest_of_its_own_and_none_where_there_is_none(checkout: Path) -> None:
    without = made_of(checkout)
    assert set(without.named()) == {"source", "lock", "model"}
    with_one = digests.compute_digests(checkout, checkout / MODEL, diarizer=checkout / digests.LOCK)
    assert changed(without, with_one) == {"diarizer"}
    assert with_one.named()["diarizer"] == without.lock


def test_a_digest_that_was_recorded_spares_reading_the_model(checkout: Path) -> None:
    (checkout / MODEL).unlink()
    assert digests.compute_digests(checkout, checkout / MODEL, recorded="known").model == "known"


def test_an_installed_wheel_has_no_lock_to_tell_of(checkout: Path) -> None:
    (checkout / digests.LOCK).unlink()
    made = made_of(checkout)
    assert made.lock == ""
    assert Digests(**made.named()) == made  # as a device process tells a front


def test_the_source_is_the_code_that_the_bento_gets() -> None:
    include = [one.removeprefix("/") for one in OmegaConf.load(ROOT / "bentofile.yaml").include]
    assert {*digests.SOURCE, digests.LOCK} <= set(include)
    others = set(include) - {*digests.SOURCE, digests.LOCK}
    assert not [one for one in others if one.endswith((".py", "/**/*"))]


def test_anybody_can_say_the_digests_with_sha256sum() -> None:
    command = (
        "find service.py parakeet_stt models/catalogue.toml -type f ! -name '*.pyc'"
        " | LC_ALL=C sort | xargs sha256sum | sha256sum"
    )
    said = subprocess.run(["sh", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert made_of(ROOT).source == said.split()[0]
    assert made_of(ROOT).model == hashlib.sha256(BUNDLED_FILE.read_bytes()).hexdigest()
