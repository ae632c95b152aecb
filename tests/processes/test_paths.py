"""The folder that the processes of one service share."""

from __future__ import annotations

from pathlib import Path

import pytest

from parakeet_stt.errors import StartupError
from parakeet_stt.processes.paths import LONGEST_SOCKET_PATH, Paths


def test_a_folder_whose_name_is_too_long_for_a_socket_is_refused_with_what_to_do(tmp_path: Path) -> None:
    folder = tmp_path / ("x" * LONGEST_SOCKET_PATH)
    folder.mkdir()
    with pytest.raises(StartupError, match="TMPDIR"):
        Paths(folder).create()
    assert list(folder.iterdir()) == []


def test_devices_have_a_socket_and_a_ledger_each(tmp_path: Path) -> None:
    paths = Paths(tmp_path)
    files = [paths.media, paths.metrics, paths.filters, paths.failure]
    files += [path for number in range(3) for path in (paths.device(number), paths.ledger(number))]
    assert len(set(files)) == len(files)
    assert {path.parent for path in files} == {tmp_path}
