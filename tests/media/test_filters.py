"""The folder of resampling filters: made once for each rate, by whichever process, and found by all."""

from __future__ import annotations

import asyncio
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.media.filters import Filters, find_filter, is_made, save_filter
from tests.conftest import ROOT

Weights = npt.NDArray[np.float32]
PRINT_THE_SUM = """
import sys
from pathlib import Path
from parakeet_stt.media.filters import find_filter
made = find_filter(Path(sys.argv[1]), 44_100)
print(made.rate, made.step, made.margin, made.weights.sum(), *sorted({"torch", "torchaudio"} & set(sys.modules)))
"""


def test_a_filter_is_missing_until_it_is_made(tmp_path: Path) -> None:
    assert not is_made(tmp_path, 44_100)
    with pytest.raises(FileNotFoundError):
        find_filter(tmp_path, 44_100)
    save_filter(tmp_path, 44_100, make_filter)
    assert is_made(tmp_path, 44_100)
    assert not is_made(tmp_path, 48_000)
    found = find_filter(tmp_path, 44_100)
    assert found is not None
    assert found.rate == 44_100
    assert np.array_equal(found.weights, make_filter(44_100))


def test_16_khz_needs_no_filter(tmp_path: Path) -> None:
    assert is_made(tmp_path, 16_000)
    assert find_filter(tmp_path, 16_000) is None
    assert list(tmp_path.iterdir()) == []


def test_a_filter_is_made_once(tmp_path: Path) -> None:
    asked: list[int] = []

    def count(rate: int) -> Weights:
        asked.append(rate)
        return make_filter(rate)

    for rate in (44_100, 48_000, 44_100):
        save_filter(tmp_path, rate, count)
    assert asked == [44_100, 48_000]


def test_another_process_finds_it_without_torch(tmp_path: Path) -> None:
    save_filter(tmp_path, 44_100, make_filter)
    made = find_filter(tmp_path, 44_100)
    assert made is not None
    program = [sys.executable, "-c", PRINT_THE_SUM, str(tmp_path)]
    printed = subprocess.run(program, cwd=ROOT, capture_output=True, text=True, check=True, timeout=60).stdout
    assert printed.split() == ["44100", str(made.step), str(made.margin), str(made.weights.sum())]


@pytest.mark.parametrize("attempt", range(5))
def test_threads_that_make_the_same_filter_at_once_leave_one_whole_file(tmp_path: Path, attempt: int) -> None:
    weights = make_filter(11_025)
    together = threading.Barrier(4)

    def make(_: int) -> Weights:
        together.wait(10)
        return weights

    with ThreadPoolExecutor(4) as pool:
        for one in [pool.submit(save_filter, tmp_path, 11_025, make) for _ in range(4)]:
            one.result()
    found = find_filter(tmp_path, 11_025)
    assert found is not None
    assert np.array_equal(found.weights, weights)
    assert len(list(tmp_path.iterdir())) == 1


def test_processes_that_make_the_same_filter_at_once_leave_one_whole_file(tmp_path: Path) -> None:
    code = (
        "import sys, time, numpy; from pathlib import Path; from parakeet_stt.media.filters import save_filter;"
        "print('here', flush=True); input();"
        "make = lambda rate: (time.sleep(0.2), numpy.full((1000, 32), rate, numpy.float32))[1];"
        "save_filter(Path(sys.argv[1]), 44_100, make)"
    )
    program = [sys.executable, "-c", code, str(tmp_path)]
    running = [
        subprocess.Popen(program, cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) for _ in range(2)
    ]
    for one in running:
        assert one.stdout is not None
        assert one.stdout.readline() == "here\n"
    for one in running:
        assert one.stdin is not None
        one.stdin.write("\n")
        one.stdin.flush()
    assert [one.wait(60) for one in running] == [0, 0]
    for one in running:
        assert one.stdin is not None
        assert one.stdout is not None
        one.stdin.close()
        one.stdout.close()
    found = find_filter(tmp_path, 44_100)
    assert found is not None
    assert np.array_equal(found.weights, np.full((1000, 32), 44_100, np.float32))
    assert len(list(tmp_path.iterdir())) == 1


def test_a_front_asks_a_device_process_only_for_what_is_missing(tmp_path: Path) -> None:
    asked: list[int] = []

    async def make(rate: int) -> None:
        asked.append(rate)
        save_filter(tmp_path, rate, make_filter)

    async def find() -> None:
        filters = Filters(tmp_path, make)
        assert await filters.find(16_000) is None
        for _ in range(2):
            found = await filters.find(44_100)
            assert found is not None
            assert found.rate == 44_100
        await filters.make(44_100)
        await filters.make(8000)
        assert is_made(tmp_path, 8000)

    asyncio.run(find())
    assert asked == [44_100, 8000]
