"""The supervisor, over small real programs: they are started again, and none outlives it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from parakeet_stt.processes import supervisor as supervisor_module
from parakeet_stt.processes.supervisor import MAX_FAILURES, Program, Supervisor

DEADLINE = 20  # seconds
PROLOGUE = """
import os, sys, time
from pathlib import Path
from parakeet_stt.processes.lifeline import Lifeline
lifeline = Lifeline()
with Path(sys.argv[1]).open("a") as file:
    file.write(f"{os.getpid()} {' '.join(sys.argv[2:])}\\n")
starts = len(Path(sys.argv[1]).read_text().splitlines())
"""
SERVE = "lifeline.say_ready()\nPath(f'{sys.argv[1]}.ready{starts}').touch()\nlifeline.socket.recv(1)\n"


def is_running(process: int) -> bool:
    """Whether a process does something still: not after its end, whether or not its parent has asked for that."""
    try:
        state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    return state not in "ZX"


def wait_for(is_done: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE
    while not is_done():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Written:
    """A program written for a test, and what it has said about its starts."""

    def __init__(self, folder: Path, name: str, code: str, *, counts_restarts: bool = False) -> None:
        (folder / f"{name}.py").write_text(PROLOGUE + code)
        self.file = folder / f"{name}.starts"
        self.program = Program(
            name, name, [str(self.file)], {**os.environ, "PYTHONPATH": str(folder)}, counts_restarts=counts_restarts
        )

    @property
    def starts(self) -> list[str]:
        """A line for each start: the process, and the arguments."""
        return self.file.read_text().splitlines() if self.file.exists() else []

    @property
    def processes(self) -> list[int]:
        return [int(line.split()[0]) for line in self.starts]

    def wait_for_start(self, number: int) -> int:
        """The process of this start, from 1, once it runs."""
        wait_for(lambda: len(self.starts) >= number)
        return self.processes[number - 1]

    def wait_until_ready(self, number: int) -> int:
        """The process of this start, from 1, once it has said that it is ready."""
        wait_for(Path(f"{self.file}.ready{number}").exists)
        return self.processes[number - 1]


class Failures:
    """Why programs can't be kept running, as the supervisor says."""

    def __init__(self) -> None:
        self.reasons: list[str] = []
        self.came = threading.Event()

    def __call__(self, reason: str) -> None:
        self.reasons.append(reason)
        self.came.set()


@pytest.fixture
def failures() -> Failures:
    return Failures()


@pytest.fixture
def supervise(failures: Failures, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Supervisor]]:
    """Starts supervisors, and closes them after the test."""
    monkeypatch.setattr(supervisor_module, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(supervisor_module, "END_SECONDS", 1.0)
    started: list[Supervisor] = []

    def start(*programs: Written) -> Supervisor:
        started.append(Supervisor([one.program for one in programs], failures))
        started[-1].start()
        return started[-1]

    yield start
    for one in started:
        one.close()


Supervise = Callable[..., Supervisor]


def test_a_program_that_dies_is_started_again_and_told_how_often(
    tmp_path: Path, supervise: Supervise, failures: Failures
) -> None:
    program = Written(tmp_path, "served", SERVE, counts_restarts=True)
    supervise(program)
    for number in range(1, 6):
        process = program.wait_until_ready(number)
        assert program.starts[number - 1].split()[1:] == [str(number - 1)]
        os.kill(process, signal.SIGKILL)
    program.wait_until_ready(6)
    assert failures.reasons == []


def test_a_program_that_is_never_ready_is_given_up_after_a_few_starts(
    tmp_path: Path, supervise: Supervise, failures: Failures
) -> None:
    program = Written(tmp_path, "broken", "sys.exit(3)\n")
    other = Written(tmp_path, "other", SERVE)
    supervise(program, other)
    assert failures.came.wait(DEADLINE)
    time.sleep(0.2)
    assert len(program.starts) == MAX_FAILURES
    (reason,) = failures.reasons
    assert "broken" in reason
    assert is_running(other.wait_for_start(1))


def test_only_failures_in_a_row_count(tmp_path: Path, supervise: Supervise, failures: Failures) -> None:
    code = "if starts % 3 == 0 and starts < 9:\n    lifeline.say_ready()\nif starts == 9:\n    " + SERVE.replace(
        "\n", "\n    "
    )
    program = Written(tmp_path, "moody", code)
    supervise(program)
    process = program.wait_until_ready(9)
    assert is_running(process)
    assert failures.reasons == []
    assert len(program.starts) == 9


def test_a_program_that_says_why_it_cannot_start_is_not_started_again(
    tmp_path: Path, supervise: Supervise, failures: Failures
) -> None:
    program = Written(tmp_path, "hopeless", "lifeline.fail('no model\\n  at /models')\nsys.exit(1)\n")
    supervise(program)
    assert failures.came.wait(DEADLINE)
    time.sleep(0.2)
    assert failures.reasons == ["no model at /models"]
    assert len(program.starts) == 1


def test_a_program_that_says_nothing_any_more_is_killed_and_started_again(
    tmp_path: Path, supervise: Supervise, failures: Failures, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "HANG_SECONDS", 1.0)
    beats = "while True:\n    lifeline.beat()\n    time.sleep(0.1)\n"
    hanging = Written(
        tmp_path, "hanging", "lifeline.say_ready()\nif starts == 1:\n    time.sleep(1000)\n" + beats
    )  # it hangs once
    loading = Written(tmp_path, "loading", "time.sleep(1.5)\nlifeline.say_ready()\n" + beats)
    supervise(hanging, loading)
    first = hanging.wait_for_start(1)
    second = hanging.wait_for_start(2)
    assert not is_running(first)
    time.sleep(1.5)
    assert is_running(second)
    assert is_running(loading.processes[0])
    assert len(loading.starts) == 1  # it took its time before it was ready, and nobody minds
    assert failures.reasons == []


def test_closing_ends_all_programs_and_starts_none_again(tmp_path: Path, supervise: Supervise) -> None:
    programs = [Written(tmp_path, f"served{number}", SERVE) for number in range(3)]
    supervisor = supervise(*programs)
    processes = [program.wait_until_ready(1) for program in programs]
    supervisor.close()
    assert not any(map(is_running, processes))
    assert [len(program.starts) for program in programs] == [1, 1, 1]


def test_closing_kills_a_program_that_does_not_end(
    tmp_path: Path, supervise: Supervise, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(supervisor_module, "END_SECONDS", 0.3)
    program = Written(tmp_path, "stubborn", "lifeline.say_ready()\ntime.sleep(1000)\n")
    supervisor = supervise(program)
    process = program.wait_for_start(1)
    supervisor.close()
    assert not is_running(process)


def test_closing_before_a_program_is_ready_ends_it(tmp_path: Path, supervise: Supervise) -> None:
    program = Written(tmp_path, "loading", "lifeline.socket.recv(1)\n")
    supervisor = supervise(program)
    process = program.wait_for_start(1)
    supervisor.close()
    assert not is_running(process)


def test_a_terminals_interrupt_does_not_reach_the_programs_and_their_niceness_counts_beside_the_service(
    tmp_path: Path, supervise: Supervise
) -> None:
    program = Written(tmp_path, "served", SERVE)
    supervise(program)
    process = program.wait_for_start(1)
    assert os.getpgid(process) != os.getpgid(0)
    assert os.getsid(process) == os.getsid(0)


def test_nothing_is_left_when_the_supervising_process_is_killed(tmp_path: Path) -> None:
    programs = [Written(tmp_path, f"served{number}", SERVE) for number in range(2)]
    arguments = ", ".join(
        f"Program({one.program.name!r}, {one.program.module!r}, [{str(one.file)!r}])" for one in programs
    )
    code = (
        "import time; from parakeet_stt.processes.supervisor import Program, Supervisor;"
        f"Supervisor([{arguments}], print).start(); time.sleep(1000)"
    )
    environment = {**os.environ, "PYTHONPATH": f"{supervisor_module.ROOT}{os.pathsep}{tmp_path}"}
    parent = subprocess.Popen([sys.executable, "-c", code], env=environment)
    try:
        processes = [program.wait_until_ready(1) for program in programs]
        assert all(map(is_running, processes))
    finally:
        parent.kill()
        parent.wait()
    wait_for(lambda: not any(map(is_running, processes)))
    assert [len(program.starts) for program in programs] == [1, 1]
