"""The engine's benchmark: a contender that can't run has its rows too, and all decode the same clips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
import torch

from parakeet_stt.audio import Audio
from parakeet_stt.engines.parakeet import Parakeet
from scripts.bench.engine import (
    CLIP_SECONDS,
    Contender,
    Decode,
    Row,
    cut_clips,
    find_best,
    load_bound,
    load_engine,
    measure,
    measure_shares,
    print_rows,
)


@contextmanager
def missing() -> Iterator[Decode]:
    raise ImportError("No module named 'peer'\nand more")
    yield


@contextmanager
def failing_above_one() -> Iterator[Decode]:
    def work(clips: Sequence[Audio], size: int) -> None:
        if size > 1:
            raise RuntimeError("too many")

    yield work


def test_a_peer_that_is_not_installed_has_rows_that_say_so(capsys: pytest.CaptureFixture[str]) -> None:
    rows = list(measure(Contender("peer", "float32", (1, 4), missing), cut_clips(4), 0))
    reason = "ImportError: No module named 'peer'"
    assert rows == [Row("peer", "float32", 1, not_run=reason), Row("peer", "float32", 4, not_run=reason)]
    assert print_rows(rows) == rows
    assert reason in capsys.readouterr().out
    assert find_best(rows) == {}


def test_what_ran_before_a_failure_is_kept() -> None:
    contender = Contender("peer", "float32", (1, 4), failing_above_one)
    first, second = measure(contender, cut_clips(4), 0)
    assert first.rtfx is not None
    assert (second.rtfx, second.not_run) == (None, "RuntimeError: too many")
    assert find_best([first, second]) == {"peer": first.rtfx}


def test_more_clips_than_the_sample_has_are_its_clips_again() -> None:
    clips = cut_clips(100)
    assert {clip.duration for clip in clips} == {CLIP_SECONDS}
    different = len(set(map(id, clips)))
    assert 10 < different < 100
    assert clips[different] is clips[0]
    assert clips[different + 3] is clips[3]


def test_the_engine_and_the_bound_run_and_leave_the_results_as_they_were(engine: Parakeet) -> None:
    clips = cut_clips(3)
    before = engine.recognize(clips)
    threads = torch.get_num_threads()
    for load in (load_engine, load_bound):
        with load(engine) as work:
            work(clips, 2)
    assert engine.recognize(clips) == before
    assert torch.get_num_threads() == threads


@pytest.mark.parametrize("size", [1, 2])
def test_shares_are_of_the_whole(engine: Parakeet, size: int) -> None:
    shares = measure_shares(engine, size, 0)
    assert list(shares) == ["encoder", "search", "scoring"]
    assert all(share > 0 for share in shares.values())
