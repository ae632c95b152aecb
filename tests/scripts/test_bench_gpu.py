"""The benchmark for a GPU runs on a CPU, so that it works on the day on which there is a GPU."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from parakeet_stt.engines import nemo_archive
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from scripts.bench.gpu import __main__ as command
from scripts.bench.gpu import plan, service
from scripts.bench.gpu.arithmetic import Sizes, encoder_operations
from scripts.bench.gpu.plan import Outcome, Part, Setup, run_all
from scripts.bench.gpu.report import render
from tests.conftest import ROOT

SETUP = Setup(BUNDLED_FILE, "cpu", short=True)
HERE = "tests.scripts.bench_parts"


def test_one_command_measures_writes_and_prints(tmp_path: Path) -> None:
    out = tmp_path / "gpu.json"
    parts = ["matrix", "memory", "graphs"]
    arguments = ["--device", "cpu", "--short", "--tiny", "--seconds", "240", "--out", str(out), "--parts", *parts]
    done = subprocess.run(
        [sys.executable, "-m", "scripts.bench.gpu", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stderr
    written = json.loads(out.read_text())
    said = {name: part["status"] for name, part in written["parts"].items()}
    assert said == {**dict.fromkeys(["machine", *parts], "ok"), "memory": "skipped", "graphs": "skipped"}, done.stderr
    assert written["parts"]["matrix"]["result"]["tflops"]["float32"]["layer"] > 0
    assert "memory: skipped" in done.stdout


def test_the_parts_with_an_engine_measure_and_are_rendered() -> None:
    """In this process, which has imported NeMo already."""
    parts = [one for one in command.PARTS if one.name in ("engine", "nemo", "profile")]
    outcomes = {one.name: plan.run_part(one, SETUP, 60) for one in parts}
    assert [(one.status, one.reason) for one in outcomes.values()] == [("ok", "")] * 3
    cells = outcomes["engine"].result["cells"]
    assert [(cell["batch"], cell["captured"]) for cell in cells] == [(1, 2), (2, 2)]
    assert all(cell["rtfx"] > 0 and cell["tokens"] > 0 for cell in cells)
    assert outcomes["nemo"].result["cells"][0]["rtfx"] > 0
    assert len(outcomes["profile"].result["kernels"]) == 15
    written = json.loads(plan.to_json(outcomes, {}))
    assert written["parts"]["engine"]["result"] == outcomes["engine"].result
    text = render({"model": "a", "random_weights": False, "command": "c"}, outcomes)
    assert "| float32 | 2 s | 1 |" in text
    assert "NeMo" in text


def part(name: str, group: str = "one", weight: float = 1) -> Part:
    return Part(name, weight, group, f"{HERE}:{name}")


def test_a_part_that_fails_is_reported_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan, "GRACE_SECONDS", 1.0)
    names = ["works", "raises", "leaves", "dies", "missing", "hangs"]
    parts = [*map(part, names), part("works", "two"), Part("gpu", 1, "two", f"{HERE}:works", gpu_only="no GPU")]
    found = list(run_all(parts, SETUP, 20))
    said = [(name, outcome.status, outcome.reason) for name, outcome in found]
    assert said[0] == ("gpu", "skipped", "no GPU")
    assert said[1:4] == [("works", "ok", ""), ("raises", "failed", "ValueError: two"),
                         ("leaves", "failed", "SystemExit: no server")]  # fmt: skip
    assert said[4] == ("dies", "failed", "the process ended with status 7")
    assert said[5][:2] == ("missing", "failed")
    assert said[6][:2] == ("hangs", "failed")
    assert "longer than" in said[6][2]
    assert said[7] == ("works", "ok", "")
    assert found[-1][1].result["before"] == ["works"]


def test_time_that_is_left_goes_to_the_parts_after(monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [part("works", weight=1), part("raises", weight=1), part("works", weight=2)]
    outcomes = [outcome for _, outcome in run_all(parts, SETUP, 100)]
    assert outcomes[0].result["seconds"] == pytest.approx(20, abs=1)  # of 80: the rest is a margin
    assert outcomes[2].result["seconds"] > 60


def test_all_parts_can_be_imported_and_take_ten_minutes_at_most() -> None:
    assert command.parse([]).seconds <= 600
    names = [one.name for one in command.PARTS]
    assert len(set(names)) == len(names)
    for one in command.PARTS:
        module, _, name = one.function.partition(":")
        assert callable(getattr(__import__(module, fromlist=[name]), name))
    assert [one.name for one in command.PARTS if one.gpu_only] == ["memory", "graphs"]


def test_operations_are_those_that_torch_counts() -> None:
    """Of the tiny model; torch counts matrix products and convolutions, as the formula does."""
    encoder = nemo_archive.restore(BUNDLED_FILE).eval().encoder
    sizes = Sizes.of(BUNDLED_FILE)
    frames = 125
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        encoder(audio_signal=torch.zeros(1, sizes.features, frames * 8), length=torch.tensor([frames * 8]))
    shared = 2 * sizes.layers * (2 * frames - 1) * sizes.width**2  # of the positions, once for the whole batch
    assert encoder_operations(sizes, 10.0) == pytest.approx(counter.get_total_flops() - shared, rel=0.02)


def test_the_real_models_operations_are_the_published_order() -> None:
    sizes = Sizes(features=128, width=1024, layers=24, expansion=4, kernel=9, channels=256)
    assert 14e9 < encoder_operations(sizes, 10.0) / 10 < 17e9


def test_the_served_parts_are_rendered_with_their_share_of_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    cells = [{"precision": "bfloat16", "clip_seconds": 10, "batch": 1, "rtfx": 500.0, "latency_ms": 2.0, "captured": 1,
              "memory_gb": 3.0}]  # fmt: skip
    engine = Outcome("ok", "", 1.0, {"cells": cells, "not_run": ["float16: gone"]})
    matrix = Outcome("ok", "", 1.0, {"tflops": {"bfloat16": {"layer": 100.0}}, "gflop_per_second_of_audio": {10: 16.0}})
    assert service.best_rtfx(Setup(BUNDLED_FILE, "cuda", False, {"engine": engine.result})) == 500.0
    assert service.best_rtfx(SETUP) is None
    row = {"load": "64 callers", "requests": 9, "errors": 0, "rtfx": 400.0, "share_of_engine": 0.8, "p50_ms": 1.0,
           "p95_ms": 2.0, "fill": 0.9, "items": 30.0}  # fmt: skip
    live = {"speakers": 64, "errors": 0, "finals": 9, "final_p50": 300.0, "final_p95": 400.0,
            "first_partial_p50": 200.0, "device_busy": 0.2, "speakers_behind_p99": 1.0}  # fmt: skip
    memory = {"outcome": "OutOfMemory: full", "in_flight_survived": True, "next_batch_survived": True,
              "capacity_seconds": 9000.0}  # fmt: skip
    outcomes = {
        "matrix": matrix,
        "engine": engine,
        "memory": Outcome("ok", "", 1.0, memory),
        "graphs": Outcome("ok", "", 1.0, {"eager": {"cells": cells, "seconds": 9.0}}),
        "served": Outcome("ok", "", 1.0, {"rows": [row]}),
        "live": Outcome("ok", "", 1.0, {"rows": [live], "at_most": 64, "limit_ms": 700.0}),
        "nemo": Outcome("failed", "ImportError: no NeMo", 1.0, None),
    }
    about = {"model": "a", "random_weights": True, "command": "c"}
    text = render(about, outcomes)
    assert "| bfloat16 | 10 s | 1 | 500.0 | 8.0 % | 2.0 | 1 | 3.0 |" in text
    assert "| 64 callers | 9 | 0 | 400.0 | 0.8 |" in text
    assert "at most 64 sessions" in text
    assert "nemo: failed, ImportError: no NeMo" in text
    assert "random weights" in text
