"""The order of waiting work, and what is put into one batch."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.device.scheduler import PATIENCE, BatchLimits, Entry, Scheduler, pick_batch
from parakeet_stt.protocols import Priority

LIMITS = BatchLimits(seconds=8, items=4, overhead=1)


def entries(*lengths: float) -> list[Entry[int]]:
    return [Entry(length, number, number) for number, length in enumerate(lengths)]


def taken(lengths: list[float], limits: BatchLimits) -> list[float]:
    return [entry.seconds for entry in pick_batch(entries(*lengths), limits)]


def test_a_batch_is_bounded_by_padded_seconds_and_by_items() -> None:
    assert taken([2, 2, 2, 2, 2, 2], LIMITS) == [2] * 4
    assert taken([3, 3, 3], LIMITS) == [3, 3]
    assert taken([1] * 9, LIMITS) == [1] * 4


def test_one_item_longer_than_the_budget_is_a_batch() -> None:
    assert taken([20, 20], LIMITS) == [20]


def test_an_item_without_length_harms_nobody() -> None:
    assert taken([0, 0, 1], LIMITS) in ([0, 0], [0, 0, 1])


def test_items_of_similar_length_go_together() -> None:
    assert taken([2, 7.5, 1.9, 0.3, 2.1, 2], LIMITS) == [1.9, 2, 2]
    assert taken([4, 0.2, 4], LIMITS) == [4, 4]


def test_where_the_overhead_is_large_filling_up_pays() -> None:
    assert taken([4, 1], BatchLimits(seconds=100, items=4, overhead=50)) == [1, 4]
    assert taken([4, 1], BatchLimits(seconds=100, items=4, overhead=0.1)) == [4]


@given(st.lists(st.floats(0.1, 30), min_size=1, max_size=40), st.floats(0, 50), st.floats(1, 100), st.integers(1, 16))
def test_every_batch_has_the_first_item_and_keeps_its_limits(
    lengths: list[float], overhead: float, seconds: float, items: int
) -> None:
    batch = pick_batch(entries(*lengths), BatchLimits(seconds, items, overhead))
    assert 0 in [entry.content for entry in batch]
    assert len(batch) <= items
    assert len(batch) == 1 or len(batch) * batch[-1].seconds <= seconds


@given(st.lists(st.tuples(st.sampled_from(list(Priority)), st.floats(0.1, 30), st.integers(0, 3)), max_size=60))
def test_everything_comes_out_exactly_once(items: list[tuple[Priority, float, int]]) -> None:
    schedule: Scheduler[int] = Scheduler()
    for number, (priority, seconds, owner) in enumerate(items):
        schedule.add(number, seconds=seconds, priority=priority, owner=owner)
    out = []
    while batch := schedule.take(LIMITS):
        out += batch
    assert sorted(out) == list(range(len(items)))
    assert not len(schedule)


def test_higher_priorities_go_first_and_the_lowest_is_not_starved() -> None:
    schedule: Scheduler[Priority] = Scheduler()
    for number in range(40):
        schedule.add(Priority.SHORT, seconds=8, priority=Priority.SHORT, owner=number)
        schedule.add(Priority.LONG, seconds=8, priority=Priority.LONG, owner="file")
    first = [schedule.take(LIMITS)[0] for _ in range(2 * (PATIENCE + 1))]
    assert first == ([Priority.SHORT] * PATIENCE + [Priority.LONG]) * 2
    schedule.add(Priority.LIVE, seconds=1, priority=Priority.LIVE, owner="speaker")
    assert schedule.take(LIMITS) == [Priority.LIVE]


def test_two_long_files_share_the_device_whatever_came_first() -> None:
    schedule: Scheduler[str] = Scheduler()
    for name, count in (("early", 20), ("late", 10)):
        for _ in range(count):
            schedule.add(name, seconds=8, priority=Priority.LONG, owner=name)
    assert Counter(schedule.take(LIMITS)[0] for _ in range(20)) == {"early": 10, "late": 10}


def test_a_clip_passes_seventy_long_files_that_came_before_it() -> None:
    schedule: Scheduler[str] = Scheduler()
    for number in range(70):
        for _ in range(2):
            schedule.add("long", seconds=8, priority=Priority.SHORT, owner=number)
    for _ in range(3):
        schedule.take(LIMITS)
    schedule.add("clip", seconds=2, priority=Priority.SHORT, owner="clip")
    assert schedule.take(LIMITS) == ["clip"]


def test_clips_that_never_end_hold_a_long_file_up_for_a_time_only() -> None:
    schedule: Scheduler[str] = Scheduler()
    schedule.add("long", seconds=8, priority=Priority.SHORT, owner="long")
    out: list[str] = []
    for number in range(20):
        schedule.add("clip", seconds=2, priority=Priority.SHORT, owner=number)
        out += schedule.take(BatchLimits(seconds=2, items=1, overhead=1))
    assert 5 <= out.index("long") <= 12  # half of the device is its share: clips of 8 s, and a little more


def test_what_is_gone_is_forgotten() -> None:
    schedule: Scheduler[int] = Scheduler()
    for number in range(4):
        schedule.add(number, seconds=1, priority=Priority.SHORT, owner=number)
    schedule.discard(lambda number: number % 2 == 0)
    assert sorted(schedule.take(LIMITS)) == [1, 3]
