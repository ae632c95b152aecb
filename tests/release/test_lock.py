"""The locks fit pyproject.toml and each other; one that does not fit fails the build in one line."""

from __future__ import annotations

import re
import shutil
import tomllib
from pathlib import Path

import pytest

from scripts.make import lock_stamp

ROOT = Path(__file__).parents[2]
PIN = re.compile(r"^([a-z0-9][a-z0-9._-]*)==([^ \\]+)(.*?)(?=^[a-z0-9]|\Z)", re.MULTILINE | re.DOTALL)


def pins(lock: str) -> dict[tuple[str, str], str]:
    """(name, version) → the rest of the entry: its marker and its hashes."""
    return {
        (name, version): " ".join(re.findall(r"--hash=\S+|; .*", rest))
        for name, version, rest in PIN.findall((ROOT / lock).read_text())
    }


@pytest.fixture
def project(tmp_path: Path) -> Path:
    for name in ("pyproject.toml", *lock_stamp.LOCKS):
        shutil.copyfile(ROOT / name, tmp_path / name)
    return tmp_path


def replace(file: Path, old: str, new: str) -> None:
    text = file.read_text()
    assert old in text
    file.write_text(text.replace(old, new, 1))


def test_the_locks_are_those_of_pyproject() -> None:
    lock_stamp.check(ROOT)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('    "fastapi",\n', ""),
        ('    "fastapi",\n', '    "fastapi",\n    "rich",\n'),
        ("nemo_toolkit[asr]", "nemo_toolkit[all]"),
        ('"torch==2.11.0"', '"torch==2.12.0"'),
        ('    "uvloop",\n', ""),
        (">=3.11.4,<3.13", ">=3.11.4,<3.14"),
    ],
)
def test_another_list_makes_the_lock_stale_until_it_is_made_again(project: Path, old: str, new: str) -> None:
    replace(project / "pyproject.toml", old, new)
    with pytest.raises(lock_stamp.StaleLock, match=r"requirements\.lock is stale") as caught:
        lock_stamp.check(project)
    assert "\n" not in str(caught.value)
    lock_stamp.write(project)
    lock_stamp.check(project)


def test_a_development_tool_concerns_only_the_developers_lock(project: Path) -> None:
    replace(project / "pyproject.toml", '    "ruff",\n', "")
    with pytest.raises(lock_stamp.StaleLock, match=r"requirements-dev\.lock is stale"):
        lock_stamp.check(project)


def test_a_lock_that_nobody_stamped_is_stale(project: Path) -> None:
    lock = project / "requirements.lock"
    lock.write_text(lock_stamp.STAMP.sub("", lock.read_text()))
    with pytest.raises(lock_stamp.StaleLock):
        lock_stamp.check(project)


def test_what_is_no_dependency_makes_no_lock_stale(project: Path) -> None:
    replace(project / "pyproject.toml", "line-length = 120", "line-length = 100")
    lock_stamp.check(project)


def test_writing_twice_is_writing_once(project: Path) -> None:
    lock_stamp.write(project)
    assert [(project / name).read_text() for name in lock_stamp.LOCKS] == [
        (ROOT / name).read_text() for name in lock_stamp.LOCKS
    ]


def test_a_gpu_and_a_cpu_install_the_same_lock() -> None:
    """torch's wheels for Linux hold both; a variant would be a local version, or an index of its own."""
    locked = pins("requirements.lock")
    versions = {name: [version for one, version in locked if one == name] for name in ("torch", "torchaudio")}
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]["engine"]
    assert versions == {name: [one.partition("==")[2] for one in declared if one.startswith(f"{name}==")]
                        for name in versions}  # fmt: skip
    text = (ROOT / "requirements.lock").read_text()
    assert not re.search(r"^(-i|--(extra-)?index-url|--find-links|-f)\b", text, re.MULTILINE)
    assert not [version for _, version in locked if "+" in version]
    assert {"triton", "nvidia-cublas", "nvidia-cudnn-cu13"} <= {name for name, _ in locked}
    assert sorted(path.name for path in ROOT.glob("requirements*")) == [
        "requirements-bulk.lock", "requirements-dev.lock", "requirements-uv.lock", "requirements.lock",
    ]  # fmt: skip


LOCKS = ("requirements.lock", "requirements-bulk.lock", "requirements-dev.lock")


def test_what_is_tested_is_what_is_served() -> None:
    """The other locks only add packages, and all are installed together."""
    served, bulk, added = ({name for name, _ in pins(lock)} for lock in LOCKS)
    assert served
    assert added
    assert "ray" in bulk
    assert len(served | bulk | added) == len(served) + len(bulk) + len(added)
    assert "$(UV) " + " ".join(f"-r {lock}" for lock in LOCKS) + "\n" in (ROOT / "Makefile").read_text()


def test_the_service_is_served_without_ray() -> None:
    assert "ray" not in {name for name, _ in pins("requirements.lock")}


SERVICE = "anyio==4.16.0 \\\n    --hash=sha256:aa\n    # via starlette\nuvloop==0.22.1 ; sys_platform == 'linux'\n"


def test_the_developers_lock_is_what_development_adds() -> None:
    both = SERVICE.replace("    # via starlette\n", "    # via\n    #   httpx\n    #   starlette\n")
    assert lock_stamp.additions(f"{both}ruff==0.15.0 \\\n    --hash=sha256:bb\n    # via dev\n", SERVICE) == (
        "ruff==0.15.0 \\\n    --hash=sha256:bb\n    # via dev\n"
    )
    assert lock_stamp.additions(both, SERVICE) == ""


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("anyio==4.16.0", "anyio==4.17.0"),
        ("sha256:aa", "sha256:cc"),
        (" ; sys_platform == 'linux'", ""),
        ("uvloop==0.22.1 ; sys_platform == 'linux'\n", ""),
    ],
)
def test_development_pins_nothing_of_the_service_otherwise(old: str, new: str) -> None:
    with pytest.raises(lock_stamp.StaleLock, match=r"of (anyio|uvloop)$"):
        lock_stamp.additions(SERVICE.replace(old, new), SERVICE)


def test_no_lock_names_an_index() -> None:
    for path in ROOT.glob("requirements*"):
        assert "://" not in path.read_text(), path.name


def test_the_tool_that_builds_the_wheel_is_locked() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    (backend,) = project["build-system"]["requires"]
    assert backend in project["dependency-groups"]["dev"]
    assert tuple(backend.split("==")) in pins("requirements-dev.lock")


def test_the_image_is_built_with_the_uv_that_made_the_locks() -> None:
    ((_, version),) = pins("requirements-uv.lock")
    assert f"uv=={version}" in (ROOT / "service.py").read_text()
