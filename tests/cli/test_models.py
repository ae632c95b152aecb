"""`parakeet models`: what can be served by name, and whether it is here."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import bentoml
import pytest
from bentoml._internal.configuration.containers import BentoMLContainer
from bentoml._internal.models import ModelStore
from typer.testing import CliRunner

from parakeet_stt.cli.app import app
from parakeet_stt.engines.catalogue import BUNDLED_FILE, CATALOGUE, DIARIZERS

V2 = "nvidia/parakeet-tdt-0.6b-v2"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Path]:
    """An empty BentoML store."""
    folder = tmp_path / "models"
    folder.mkdir()
    BentoMLContainer.model_store.set(ModelStore(folder))
    yield folder
    BentoMLContainer.model_store.reset()


def test_each_model_of_the_catalogue_says_whether_it_is_here(store: Path) -> None:
    def listed() -> dict[str, tuple[bool, str]]:
        lines = CliRunner().invoke(app, ["models", "--json"], catch_exceptions=False).output.splitlines()
        return {one["name"]: (one["here"], one["note"]) for one in map(json.loads, lines)}

    before = listed()
    assert before.keys() == CATALOGUE.keys() | DIARIZERS.keys()
    assert before[V2] == (False, f"parakeet fetch {V2}")
    assert [name for name, (here, _) in before.items() if here] == ["parakeet-tdt-tiny", "sortformer-tiny"]
    with bentoml.models.create("parakeet-tdt-0.6b-v2:one", metadata={"model": V2}) as model:
        Path(model.path, "weights.nemo").write_bytes(b"weights")
    here, note = listed()[V2]
    assert here
    assert Path(note).name == "weights.nemo"
    Path(note).unlink()
    here, note = listed()[V2]
    assert not here
    assert "damaged" in note


def test_people_get_a_table(store: Path) -> None:
    lines = CliRunner().invoke(app, ["models"], catch_exceptions=False).output.splitlines()
    assert len(lines) == len(CATALOGUE) + len(DIARIZERS)
    assert str(BUNDLED_FILE) in lines[0]
    assert lines[1].split() == ["–", V2, "en", "CC-BY-4.0", "parakeet", "fetch", V2]
