"""Device processes that start in a few seconds: forked from a process that has imported torch and NeMo already.

Importing takes ten seconds of each start, and dozens of tests start a service. From the fork on it is the real device
process, with the environment, the lifeline and the output that the supervisor gave.

As a program with one argument, a socket, it is the process that forks: one for a test run. With a device process's
arguments it is what the supervisor starts: it asks for a fork, and ends as that does.
"""

from __future__ import annotations

import array
import importlib
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

ADDRESS = "PRELOADED_DEVICES"  # in the environment: the socket of the process that forks
ENGINE = "PRELOADED_ENGINE"  # in the environment of a service: the module whose `load` makes another engine
STANDARD = (0, 1, 2)
MAX_BYTES = 1 << 20  # of an environment
IMPORT_SECONDS = 120  # a loaded machine


@contextmanager
def forking() -> Iterator[str]:
    """Start the process that forks; it ends with the `with`. Gives its address. It serves once it has imported all."""
    with tempfile.TemporaryDirectory(prefix="preloaded-") as folder:
        address = f"{folder}/socket"
        # As service.py has it for device processes: glibc reads these when a process starts.
        keep_memory = {"MALLOC_TRIM_THRESHOLD_": str(16 << 20), "MALLOC_MMAP_THRESHOLD_": str(16 << 20)}
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.services.preloaded", address], cwd=Path(__file__).parents[2],
            env={**os.environ, **keep_memory}, stdin=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            yield address
        finally:
            process.terminate()
            process.wait()


def serve_forks(address: str) -> None:
    """Import, then fork a device process for everyone who connects."""
    from parakeet_stt import engines

    engines.set_cache_folder(Path(address).parent)
    import parakeet_stt.engines.loading
    import parakeet_stt.processes.device  # noqa: F401

    assert "prometheus_client" not in sys.modules  # it reads the folder of its files when it is imported
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # leaves no zombies
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(address)
        listener.listen()
        while True:
            asker, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                _become_device(asker)
            asker.close()


def _become_device(asker: socket.socket) -> None:
    """In the fork: take what the asker has, be the device process, and tell its exit status."""
    status = 1
    try:
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        size = array.array("i").itemsize * len(STANDARD)
        message, ancillary, _, _ = asker.recvmsg(MAX_BYTES, socket.CMSG_SPACE(size))
        given = array.array("i", ancillary[0][2])
        for target, descriptor in zip(STANDARD, given, strict=True):
            os.dup2(descriptor, target)
            os.close(descriptor)
        arguments, environment, folder = json.loads(message)
        sys.argv[1:] = arguments
        os.environ.clear()
        os.environ.update(environment)
        os.chdir(folder)
        os.setpgid(0, 0)
        threading.Thread(target=_end_with, args=(asker,), daemon=True).start()
        from parakeet_stt.processes import device

        own = os.environ.get(ENGINE)
        device.main(importlib.import_module(own).load if own else device.load_engine)
        status = 0
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 1
    finally:
        asker.send(bytes([status]))
        os._exit(status)


def _end_with(asker: socket.socket) -> None:
    asker.recv(1)  # nothing is ever sent: it has ended
    os._exit(1)


def ask_for_fork() -> int:
    """Have a device process forked with this one's arguments, environment, and descriptors; its exit status."""
    for ignored in (signal.SIGINT, signal.SIGTERM):  # as the device process does
        signal.signal(ignored, signal.SIG_IGN)
    address, deadline = os.environ[ADDRESS], time.monotonic() + IMPORT_SECONDS
    while not Path(address).exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    with socket.socket(socket.AF_UNIX) as forker:
        forker.connect(address)
        message = json.dumps([sys.argv[1:], dict(os.environ), os.getcwd()]).encode()
        forker.sendmsg([message], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", STANDARD))])
        for own in STANDARD:  # the lifeline closes when the fork's end of it does
            os.close(own)
        status = forker.recv(1)
    return status[0] if status else 1


if __name__ == "__main__":
    if len(sys.argv) == 2:
        serve_forks(sys.argv[1])
    sys.exit(ask_for_fork())
