"""What happens before the first request: one line and exit status 1; and the guard of tests against the network."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from parakeet_stt.engines.catalogue import BUNDLED_FILE
from tests.conftest import ROOT, clean_environment, free_port


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("STT_MODEL", "nvidia/parakeet-tdt-0.6b-v2", "parakeet_stt fetch nvidia/parakeet-tdt-0.6b-v2"),
        ("BATCH_SIZE", "many", "STT_MAX_BATCH or BATCH_SIZE"),
        ("STT_DEVICE", "cuda:99", "no such GPU"),
    ],
)
def test_what_cannot_be_served_is_one_line_and_exit_status_1(tmp_path: Path, name: str, value: str, says: str) -> None:
    bentoml = Path(sys.executable).with_name("bentoml")
    ended = subprocess.run(
        [bentoml, "serve", "service:ParakeetSTT", "--host", "127.0.0.1", "--port", str(free_port())],
        cwd=ROOT, env=clean_environment(BENTOML_HOME=str(tmp_path), **{name: value}), capture_output=True, text=True,
        timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert line.startswith("parakeet-stt: ")
    assert says in line


def test_a_file_that_is_no_model_is_one_line_and_exit_status_1(tmp_path: Path) -> None:
    broken = tmp_path / "broken.nemo"
    broken.write_bytes(BUNDLED_FILE.read_bytes()[:100_000])
    bentoml = Path(sys.executable).with_name("bentoml")
    ended = subprocess.run(
        [bentoml, "serve", "service:ParakeetSTT"], cwd=ROOT, env=clean_environment(STT_MODEL=str(broken)),
        capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert ended.returncode == 1
    (line,) = (ended.stdout + ended.stderr).splitlines()
    assert "broken.nemo is no Parakeet-TDT model" in line


def test_the_guard_itself_refuses_and_records(tmp_path: Path) -> None:
    refused = tmp_path / "refused"
    code = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"
    ended = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60,
        env=clean_environment(PYTHONPATH=str(ROOT / "tests" / "offline"), REFUSED_CONNECTIONS=str(refused)),
    )  # fmt: skip
    assert "no network in tests" in ended.stderr
    assert "192.0.2.1" in refused.read_text()
