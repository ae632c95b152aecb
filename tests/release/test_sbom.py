"""The list of an image's contents is made from its files, and the same files give the same list."""

from __future__ import annotations

import hashlib
import json
import sysconfig
from pathlib import Path
from typing import Any

import pytest

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from scripts.make.sbom import make_bill_of_materials

STATUS = """Package: libssl3
Status: install ok installed
Architecture: amd64
Version: 3.0.17-1~deb12u2+b1
Description: a library
 of more than one line: with a colon

Package: gone
Status: deinstall ok config-files
Architecture: amd64
Version: 1.0
"""


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folders of an image, with this machine's Python packages."""
    root = tmp_path_factory.mktemp("image")
    bento, venv = root / "home/bentoml/bento/src", root / "app/.venv"
    packages = venv / "lib/python3.11"
    for folder in (bento, packages, root / "var/lib/dpkg"):
        folder.mkdir(parents=True)
    (packages / "site-packages").symlink_to(sysconfig.get_path("purelib"))
    (venv / "pyvenv.cfg").write_text("home = /usr/local/bin\nversion_info = 3.11.9\n")
    (root / "var/lib/dpkg/status").write_text(STATUS)
    (bento / "tiny.nemo").write_bytes(BUNDLED_FILE.read_bytes())
    return root


@pytest.fixture(scope="module")
def listed(root: Path) -> dict[str, Any]:
    components: list[dict[str, Any]] = make_bill_of_materials(root)["components"]
    return {one["name"]: one for one in components}


def test_python_packages_have_their_version_and_licence(listed: dict[str, Any]) -> None:
    assert listed["bentoml"]["purl"] == "pkg:pypi/bentoml@1.4.39"
    assert listed["nemo-toolkit"]["version"] == "3.0.0"
    assert listed["fastapi"]["licenses"] == [{"license": {"name": "MIT"}}]


def test_debian_packages_are_those_that_are_installed(listed: dict[str, Any]) -> None:
    assert listed["libssl3"]["purl"] == "pkg:deb/debian/libssl3@3.0.17-1~deb12u2%2Bb1?arch=amd64"
    assert "gone" not in listed


def test_python_itself_and_the_weights_are_listed(listed: dict[str, Any]) -> None:
    assert listed["cpython"]["version"] == "3.11.9"
    (digest,) = listed["tiny"]["hashes"]
    assert digest == {"alg": "SHA-256", "content": hashlib.sha256(BUNDLED_FILE.read_bytes()).hexdigest()}


def test_the_same_files_give_the_same_list(root: Path) -> None:
    assert json.dumps(make_bill_of_materials(root)) == json.dumps(make_bill_of_materials(root))
