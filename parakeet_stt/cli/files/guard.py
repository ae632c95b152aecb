"""Runs the server of `parakeet transcribe --local`, and ends it when standard input closes.

python -m parakeet_stt.cli.files.guard PORT
"""

from __future__ import annotations

import subprocess
import sys
import threading
from os import environ, read

from parakeet_stt.cli.serve import serve_command


def main() -> None:
    """Serve at that port of loopback."""
    environ.setdefault("BENTOML_DO_NOT_TRACK", "True")
    command = [*serve_command(), "--host", "127.0.0.1", "--port", sys.argv[1]]
    with subprocess.Popen(command, stdin=subprocess.DEVNULL) as server:  # noqa: S603

        def end_with_caller() -> None:
            while read(0, 1024):  # a lock of `sys.stdin` would be held when the server ends first
                pass
            server.terminate()

        threading.Thread(target=end_with_caller, daemon=True).start()
        sys.exit(server.wait())


if __name__ == "__main__":
    main()
