"""Capacity on paper: the steps of a replica, the number of replicas, and what an hour of audio costs."""

from __future__ import annotations

import dataclasses
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.streaming.chunk_decoder import ChunkRules
from scripts.bench.plan_capacity import (
    API_MINUTE,
    DECODING,
    DETECTION,
    LIVE,
    LIVE_LOAD,
    REQUEST,
    Load,
    Replica,
    audio_hour,
    audio_hour_at_best,
    bottleneck,
    break_even,
    max_live_sessions,
    replicas,
    steps,
    waiting_target,
)
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "scaling.md").read_text()
CPU = Replica(rtfx=12, cores=4, price=0.2)  # docs/benchmarks.md, the server at 0.6B
A100 = Replica(rtfx=3386, cores=12, price=3.0, has_gpu=True)  # as published
H100 = Replica(rtfx=7143, cores=16, price=5.0, has_gpu=True)  # as published
amounts = st.floats(0, 1e5)


def test_on_a_cpu_the_device_is_short_first() -> None:
    load = Load(hours=20)
    assert bottleneck(load, CPU).name == "device"
    assert replicas(load, CPU) == math.ceil(20 / (12 * 0.7)) == 3
    assert audio_hour(load, CPU) == pytest.approx(3 * 0.2 / 20)


def test_a_fast_gpu_waits_for_the_cores_with_short_clips_or_few_cores() -> None:
    few = dataclasses.replace(A100, cores=2)
    assert bottleneck(Load(hours=1000, clip=10), few).name == "cores"
    assert bottleneck(Load(hours=1000), dataclasses.replace(A100, cores=64)).name == "device"
    assert bottleneck(Load(hours=1000), dataclasses.replace(A100, megabits=100)).name == "network"
    assert bottleneck(Load(hours=1000, clip=1), dataclasses.replace(H100, cores=64)).name == "device process"


def test_the_page_says_how_many_cores_an_h100_needs() -> None:
    clips, live = Load(hours=7000, clip=10), Load(live=500)
    for load, words in ((clips, "7,000 × in clips of 10 s"), (live, "500 live sessions")):
        shares = {step.name: step.share for step in steps(load, dataclasses.replace(H100, cores=1))}
        assert f"| {words} | {math.ceil(shares['cores'])} |" in PAGE


@given(hours=amounts, live=amounts, more=amounts, rtfx=st.floats(1, 1e4))
def test_more_load_never_needs_fewer_replicas_and_a_faster_device_never_more(
    hours: float, live: float, more: float, rtfx: float
) -> None:
    replica = Replica(rtfx, 8)
    count = replicas(Load(hours, live), replica)
    assert count >= 1
    assert replicas(Load(hours + more, live), replica) >= count
    assert replicas(Load(hours, live + more), replica) >= count
    assert replicas(Load(hours, live), dataclasses.replace(replica, rtfx=2 * rtfx)) <= count


@given(speech=st.floats(0, 1), rtfx=st.floats(1, 1e4))
def test_so_many_sessions_as_a_replica_carries_need_one_and_one_more_needs_another(speech: float, rtfx: float) -> None:
    replica = Replica(rtfx, 8)
    most = max_live_sessions(replica, speech)
    assert replicas(Load(live=max(0, most - 1), speech=speech), replica) == 1
    assert replicas(Load(live=most + 1, speech=speech), replica) == 2 or most == 0


def test_files_and_sessions_add_up_on_the_device() -> None:
    shares = {step.name: step.share for step in steps(Load(hours=6, live=3, speech=0.25), CPU)}
    assert shares["device"] == pytest.approx((6 + 3 * 0.25 * LIVE_LOAD) / 12)
    prepared = REQUEST / 60 + DECODING + DETECTION
    assert shares["cores"] == pytest.approx((6 * prepared + 3 * (LIVE + DETECTION)) / 4)


def test_a_live_second_is_not_planned_for_less_than_a_session_decodes_for_it() -> None:
    rules = ChunkRules()
    assert rules.length is not None
    decoded = rules.left_context + rules.length + rules.right_context
    assert 0.8 * LIVE_LOAD < decoded / rules.length <= LIVE_LOAD


def test_an_api_is_cheaper_below_the_break_even_point_and_dearer_above() -> None:
    hours = break_even(A100.price)
    assert hours == pytest.approx(A100.price / 0.36)
    assert audio_hour(Load(hours=0.9 * hours), A100) > 60 * API_MINUTE > audio_hour(Load(hours=1.1 * hours), A100)


def test_the_target_of_the_autoscaler_is_what_is_done_in_the_wait() -> None:
    assert waiting_target(CPU, wait=5) == 60


@pytest.mark.parametrize(("name", "replica"), [("4 cores, 0.6B", CPU), ("an A100 with 12 cores", A100)])
def test_the_pages_numbers_of_replicas_are_the_scripts(name: str, replica: Replica) -> None:
    files = [Load(hours=hours) for hours in (1, 10, 100, 1000, 10_000)]
    live = [Load(live=sessions) for sessions in (10, 100, 500)]
    (row,) = [line for line in PAGE.splitlines() if line.startswith(f"| {name}")]
    shown = [cell.strip() for cell in row.strip("|").split("|")][1:]
    assert shown == [f"{replicas(load, replica):,}" for load in (*files, *live)]


def test_the_pages_prices_are_the_scripts() -> None:
    cpu, a100 = (audio_hour_at_best(replica, Load()) for replica in (CPU, A100))
    assert f"(measured) | {cpu:.3f} | a {60 * API_MINUTE / cpu:.0f}th" in PAGE
    assert f"(device published, not ours) | {a100:.4f} | a {60 * API_MINUTE / a100:.0f}th" in PAGE
    for price in (0.2, 0.5, 0.8, 1, 3, 5):
        assert f"| {price:.2f} | {break_even(price):.1f} |" in PAGE
