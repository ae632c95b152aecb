"""The ledger: what fronts in several processes admit by the same sums."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from parakeet_stt.audio import SAMPLE_RATE
from parakeet_stt.device.ledger import (
    MAX_FRONTS,
    QUEUE_AUDIO_SECONDS,
    QUEUE_WORK_SECONDS,
    RETRY_SECONDS,
    UNREAD_SECONDS,
    Ledger,
)
from parakeet_stt.errors import Overloaded
from parakeet_stt.protocols import Priority

ROOT = Path(__file__).parents[2]
PROGRAM = """
import sys
from contextlib import ExitStack
from pathlib import Path
from parakeet_stt.device.ledger import Ledger
from parakeet_stt.errors import Overloaded
from parakeet_stt.protocols import Priority

ledger = Ledger(Path(sys.argv[1]))
ledger.join()
sessions = ExitStack()

def open_sessions(count):
    opened = 0
    for _ in range(count):
        try:
            sessions.enter_context(ledger.session())
            opened += 1
        except Overloaded:
            pass
    return opened

more = []

def join_more(count):
    for _ in range(count):
        more.append(Ledger(Path(sys.argv[1])))
        more[-1].join()

print("joined", flush=True)
for line in sys.stdin:
    print(eval(line), flush=True)
"""


class Front:
    """A front in a process of its own, which evaluates expressions of its `ledger`."""

    def __init__(self, path: Path) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM, str(path)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT,
        )  # fmt: skip
        self.answer()

    def do(self, expression: str) -> str:
        self.ask(expression)
        return self.answer()

    def ask(self, expression: str) -> None:
        assert self.process.stdin
        self.process.stdin.write(expression + "\n")
        self.process.stdin.flush()

    def answer(self) -> str:
        assert self.process.stdout
        line = self.process.stdout.readline()
        assert line
        return line.strip()

    def kill(self) -> None:
        self.process.kill()
        self.process.communicate()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger"


@pytest.fixture
def ledger(path: Path) -> Ledger:
    """Of a front in this process, with a device of ten times real time."""
    made = Ledger(path)
    made.set_limits(max_waiting=30, max_sessions=10)
    made.set_pace(speed=10, batch_seconds=8)
    made.join()
    return made


@pytest.fixture
def start(path: Path) -> Iterator[Callable[[], Front]]:
    """Starts fronts."""
    fronts: list[Front] = []

    def start_front() -> Front:
        fronts.append(Front(path))
        return fronts[-1]

    yield start_front
    for front in fronts:
        front.kill()


def admitted(ledger: Ledger) -> int:
    """How many recordings are admitted until one is refused: a few, or something does not count."""
    for count in range(100):
        try:
            ledger.admit()
        except Overloaded:
            return count
    pytest.fail("none of 100 recordings is refused")


def test_what_waits_is_the_sum_over_all_fronts(ledger: Ledger, start: Callable[[], Front]) -> None:
    fronts = [start() for _ in range(3)]
    for number, front in enumerate(fronts):
        front.do(f"ledger.count(Priority.SHORT, {number} * {SAMPLE_RATE})")
        front.do(f"ledger.count(Priority.LONG, {SAMPLE_RATE})")
    ledger.count(Priority.LIVE, 10 * SAMPLE_RATE)
    assert ledger.waiting_seconds() == 0 + 1 + 2 + 3 + 10
    assert float(fronts[0].do("ledger.waiting_seconds()")) == 16
    fronts[2].do(f"ledger.count(Priority.SHORT, -2 * {SAMPLE_RATE})")
    assert ledger.waiting_seconds() == 14


def test_all_fronts_see_what_the_device_says(ledger: Ledger, start: Callable[[], Front]) -> None:
    front = start()
    assert front.do("ledger.batch_seconds") == "8.0"
    ledger.set_pace(speed=10, batch_seconds=4)
    assert front.do("ledger.batch_seconds") == "4.0"


def test_a_front_refuses_what_another_front_has_waiting(ledger: Ledger, start: Callable[[], Front]) -> None:
    other = start()
    other.do(f"ledger.count(Priority.SHORT, 29 * {SAMPLE_RATE})")
    ledger.admit()
    with pytest.raises(Overloaded):
        ledger.admit()


def test_a_front_that_was_killed_counts_no_more_and_its_row_is_taken_again(
    ledger: Ledger, start: Callable[[], Front], path: Path
) -> None:
    front = start()
    front.do(f"ledger.count(Priority.SHORT, 100 * {SAMPLE_RATE})")
    assert front.do("open_sessions(10)") == "10"
    others = start()
    others.do(f"join_more({MAX_FRONTS - 3})")
    with pytest.raises(OSError, match="too many fronts"):
        Ledger(path).join()
    front.kill()
    assert ledger.waiting_seconds() == 0
    with ledger.session():
        pass
    following = start()
    assert following.do("ledger.waiting_seconds()") == "0.0"
    assert following.do("open_sessions(11)") == "10"


def test_sessions_never_exceed_the_limit_however_many_processes_open_them_at_once(
    ledger: Ledger, start: Callable[[], Front]
) -> None:
    ledger.set_limits(max_waiting=None, max_sessions=100)
    fronts = [start() for _ in range(3)]
    for _ in range(5):
        for front in fronts:
            front.ask("open_sessions(60)")
        assert sum(int(front.answer()) for front in fronts) == 100
        with pytest.raises(Overloaded), ledger.session():
            pass
        for front in fronts:
            front.do("sessions.close()")


def test_a_session_counts_for_as_long_as_it_lasts(ledger: Ledger) -> None:
    with ExitStack() as sessions:
        for _ in range(10):
            sessions.enter_context(ledger.session())
        with pytest.raises(Overloaded) as refused, ledger.session():
            pass
    assert refused.value.retry_after == RETRY_SECONDS
    with pytest.raises(ZeroDivisionError), ledger.session():
        raise ZeroDivisionError
    for _ in range(11):
        with ledger.session():
            pass


def test_a_recording_counts_as_a_short_clip_until_its_audio_is_known(ledger: Ledger) -> None:
    assert admitted(ledger) == 30 / UNREAD_SECONDS
    ledger.read()
    assert admitted(ledger) == 1
    ledger.read()
    ledger.count(Priority.SHORT, int(UNREAD_SECONDS * SAMPLE_RATE))
    assert admitted(ledger) == 0


@pytest.mark.parametrize(("priority", "more"), [(Priority.LIVE, 0), (Priority.SHORT, 0), (Priority.LONG, 6)])
def test_only_audio_that_goes_first_is_waited_for(ledger: Ledger, priority: Priority, more: int) -> None:
    """The later parts of long recordings share the device with whatever comes."""
    ledger.count(priority, 30 * SAMPLE_RATE)
    assert admitted(ledger) == more


@pytest.mark.parametrize(("speed", "expected"), [(10, 3), (100, 1), (7, 5), (0, RETRY_SECONDS)])
def test_who_is_refused_is_told_when_the_queue_should_be_done(ledger: Ledger, speed: float, expected: int) -> None:
    ledger.set_pace(speed=speed, batch_seconds=8)
    ledger.count(Priority.SHORT, 30 * SAMPLE_RATE)
    with pytest.raises(Overloaded) as refused:
        ledger.admit()
    assert refused.value.retry_after == expected
    assert "30 s" in refused.value.message


@pytest.mark.parametrize("speed", [0.0, 10.0, QUEUE_AUDIO_SECONDS / QUEUE_WORK_SECONDS + 10])
def test_without_a_setting_a_minute_of_work_may_wait_and_at_least_half_an_hour_of_audio(
    ledger: Ledger, speed: float
) -> None:
    most = max(60 * speed, 1800)
    ledger.set_limits(max_waiting=None, max_sessions=1)
    ledger.set_pace(speed=speed, batch_seconds=8)
    ledger.count(Priority.SHORT, int(most * SAMPLE_RATE) - 1)
    ledger.admit()
    ledger.read()
    ledger.count(Priority.SHORT, 1)
    with pytest.raises(Overloaded):
        ledger.admit()


def test_the_ledger_is_only_for_the_user_of_the_service(ledger: Ledger, path: Path) -> None:
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.stat().st_uid == os.getuid()
