"""The command as a whole: what it knows, how soon it answers."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from parakeet_stt.cli.app import app
from parakeet_stt.cli.server import api_url
from tests.conftest import ROOT, clean_environment, free_port


def test_each_command_says_what_it_does() -> None:
    said = CliRunner().invoke(app, ["--help"]).output
    assert {"transcribe", "live", "serve", "fetch", "models"} <= set(said.split())


def test_it_runs_as_a_module_and_without_arguments_shows_its_help() -> None:
    done = subprocess.run([sys.executable, "-m", "parakeet_stt"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2
    assert "Usage" in done.stdout + done.stderr


def test_serve_becomes_the_service_and_has_its_exit_status(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "parakeet_stt", "serve", "--port", str(free_port()), "--model", "no-such-model"]
    environment = clean_environment(BENTOML_HOME=str(tmp_path))
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 1
    (line,) = (done.stdout + done.stderr).splitlines()
    assert line.startswith("parakeet-stt: STT_MODEL='no-such-model' is neither")


@pytest.mark.parametrize(
    ("given", "base"),
    [
        ("127.0.0.1:3000", "http://127.0.0.1:3000/v1"),
        ("http://127.0.0.1:3000/", "http://127.0.0.1:3000/v1"),
        ("http://127.0.0.1:3000/v1/", "http://127.0.0.1:3000/v1"),
        ("https://speech.example/api/v1", "https://speech.example/api/v1"),
    ],
)
def test_an_address_may_be_given_as_people_write_it(given: str, base: str) -> None:
    assert api_url(given) == base


@pytest.mark.parametrize("given", ["", "ftp://speech.example", "http://:3000", "http://speech.example:port"])
def test_what_is_no_address_is_refused(given: str) -> None:
    with pytest.raises(typer.BadParameter):
        api_url(given)
