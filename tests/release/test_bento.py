"""The Bento: the same files wherever it is built, and a service that needs nothing beside it."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from bentoml._internal.bento import Bento
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.container import construct_containerfile
from bentoml._internal.models import ModelStore
from omegaconf import OmegaConf

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from scripts.make.bento_digest import BentoDigest, compute_digest
from tests.conftest import ROOT, Sample, Serve, Server, clean_environment
from tests.sockets import END, answers, every, frames, opened, pcm

PUBLISHED_NAME = "nvidia/parakeet-tdt-0.6b-v2"
NOT_CLONED = shutil.ignore_patterns(
    ".venv", ".git", ".*_cache", ".hypothesis", "__pycache__", "build", "shared", ".env"
)


@dataclass(frozen=True)
class Built:
    """A Bento in a store of its own. output: of the build."""

    store: Path
    output: str

    @property
    def folder(self) -> Path:
        bentos = self.store / "bentos" / "parakeet_stt"
        return bentos / (bentos / "latest").read_text()

    @property
    def digest(self) -> BentoDigest:
        return compute_digest(self.folder)

    @property
    def description(self) -> Any:
        return OmegaConf.to_container(OmegaConf.load(self.folder / "bento.yaml"))


def clone(parent: Path) -> Path:
    """The working tree in another folder."""
    folder = parent / "clone"
    shutil.copytree(ROOT, folder, ignore=NOT_CLONED)
    return folder


def run(folder: Path, store: Path, module: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", module, *arguments], cwd=folder,
        env=clean_environment(BENTOML_HOME=str(store)), capture_output=True, text=True, timeout=180,
    )  # fmt: skip


def build(folder: Path, store: Path, *arguments: str) -> Built:
    done = run(folder, store, "scripts.make.build_bento", *arguments)
    assert done.returncode == 0, done.stderr
    return Built(store, done.stdout)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Built:
    parent = tmp_path_factory.mktemp("first")
    return build(clone(parent), parent / "store")


@pytest.fixture(scope="module")
def baked(tmp_path_factory: pytest.TempPathFactory) -> Built:
    """One with a model of the store: the tiny one, imported as if it were the published one."""
    store = tmp_path_factory.mktemp("baked") / "store"
    assert run(ROOT, store, "parakeet_stt", "fetch", PUBLISHED_NAME, "--from", str(BUNDLED_FILE)).returncode == 0
    return build(ROOT, store, "--model", PUBLISHED_NAME)


@pytest.fixture(scope="module")
def context(baked: Built, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `bentoml containerize` gives the engine of that Bento."""
    folder = tmp_path_factory.mktemp("context") / "bento"
    BentoMLContainer.model_store.set(ModelStore(baked.store / "models"))
    try:
        with construct_containerfile(Bento.from_path(str(baked.folder))) as (made, _):
            shutil.copytree(made, folder)
    finally:
        BentoMLContainer.model_store.reset()
    return folder


@pytest.fixture(scope="module")
def served(context: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """The Bento with a model, served as in its image: from an empty folder, with an empty store, offline.

    A Bento without one is served by `scripts.release.check_container`.
    """
    folder, temporary, empty = (tmp_path_factory.mktemp(name) for name in ("empty", "temporary", "no-store"))
    environment = {"BENTOML_HOME": str(empty), "TMPDIR": str(temporary), "STT_MODEL": PUBLISHED_NAME}
    with Serve(
        tmp_path_factory.mktemp("served") / "log", target=str(context), folder=folder, **environment
    ) as running:  # fmt: skip
        yield running
    assert not list(folder.iterdir())
    assert not list(temporary.iterdir())


def test_two_clones_in_different_folders_give_one_digest(built: Built, tmp_path: Path) -> None:
    elsewhere = clone(tmp_path / "another" / "place")
    copies = elsewhere / "build" / "container" / "parakeet_stt"
    copies.mkdir(parents=True)
    for name in ("service.py", "README.md", "parakeet_stt/audio.py"):  # older copies, which do not count
        shutil.copy(elsewhere / name, copies)
    other = build(elsewhere, tmp_path / "store")
    assert other.digest.content == built.digest.content
    assert other.digest.left_out.keys() == {"version", "creation_time"}
    assert other.digest.left_out["version"] != built.digest.left_out["version"]


@pytest.mark.parametrize("file", ["README.md", "src/service.py", "src/requirements.lock", "env/docker/Dockerfile",
                                  "src/models/parakeet-tdt-tiny/parakeet-tdt-tiny.nemo", "bento.yaml"])  # fmt: skip
def test_one_changed_byte_anywhere_changes_the_digest(built: Built, tmp_path: Path, file: str) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(built.folder, copy)
    assert compute_digest(copy).content == built.digest.content
    content = bytearray((copy / file).read_bytes())
    content[len(content) // 2] ^= 1
    (copy / file).write_bytes(content)
    assert compute_digest(copy).content != built.digest.content


def test_the_build_and_a_command_print_the_digest_and_what_it_leaves_out(built: Built) -> None:
    said = run(ROOT, built.store, "scripts.make.bento_digest").stdout
    assert said in built.output
    assert f"digest       sha256:{built.digest.content}" in said
    description = built.description
    assert f"not counted  version: {description['version']}" in said
    assert f"not counted  creation_time: '{description['creation_time']}'" in said


def test_what_the_image_installs_is_the_lock(built: Built) -> None:
    def wanted(file: str) -> list[str]:
        lines = (built.folder / file).read_text().splitlines()
        stripped = (line.strip().replace(" ; ", "; ").replace('"', "'") for line in lines)  # BentoML quotes otherwise
        return [line for line in stripped if line and not line.startswith("#")]

    *installed, last = wanted("env/python/requirements.txt")
    assert installed == wanted("src/requirements.lock")
    assert f"{last} \\" in installed  # BentoML adds itself, in the version that is locked already


def test_the_image_gets_neither_a_compiler_nor_a_cache(built: Built) -> None:
    dockerfile = (built.folder / "env" / "docker" / "Dockerfile").read_text()
    assert "apt-get" not in dockerfile
    assert "no-cache = true" in dockerfile


def test_a_stale_lock_fails_the_build_in_one_line(tmp_path: Path) -> None:
    folder = clone(tmp_path)
    project = folder / "pyproject.toml"
    project.write_text(project.read_text().replace('    "fastapi",\n', '    "fastapi",\n    "rich",\n'))
    done = run(folder, tmp_path / "store", "scripts.make.build_bento")
    assert (done.returncode, done.stdout) == (1, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("no Bento was built: requirements.lock is stale")


def test_the_served_bento_transcribes(served: Server, samples: dict[str, Sample]) -> None:
    answer = httpx.post(
        f"{served.openai_url}/audio/transcriptions", data={"model": "whisper-1"}, timeout=60,
        files={"file": samples["short"].path.read_bytes()},
    )  # fmt: skip
    assert answer.json()["text"] == samples["short"].text


def test_the_served_bento_transcribes_what_is_spoken_to_it_live(served: Server, samples: dict[str, Sample]) -> None:
    with opened(served) as socket:
        for frame in frames(pcm(samples["short"].audio().samples), every(100)):
            socket.send(frame)
        socket.send(END)
        finals = [message["text"] for message in answers(socket) if message.get("type") == "final"]
        assert " ".join(finals) == samples["short"].text
        assert socket.close_code == 1000


def test_the_served_bento_has_its_model_where_no_store_has_it_and_says_what_it_is_made_of_as_its_labels_do(
    served: Server, context: Path, baked: Built
) -> None:
    assert f"STT_MODEL={PUBLISHED_NAME}" in (context / "env" / "docker" / "Dockerfile").read_text()
    health = httpx.get(f"{served.url}/healthz").json()
    assert (health["status"], health["model"]) == ("ok", PUBLISHED_NAME)
    assert health["digests"] == baked.description["labels"]


def test_the_served_bento_reached_for_no_other_machine(served: Server) -> None:
    assert served.refused.read_text() == ""


def test_a_model_that_is_not_in_the_store_is_not_baked_in(tmp_path: Path) -> None:
    done = run(ROOT, tmp_path, "scripts.make.build_bento", "--model", PUBLISHED_NAME)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "parakeet_stt fetch" in line
