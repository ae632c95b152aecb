"""The program that forks media workers.

python -m parakeet_stt.processes.media SOCKET [--detect]
"""

from __future__ import annotations

import os
import socket
import sys
from pathlib import Path

from parakeet_stt.ipc.limits import allow_many_descriptors
from parakeet_stt.media import worker
from parakeet_stt.processes.lifeline import Lifeline
from parakeet_stt.protocols import SpeechDetector


def main() -> None:
    """Serve at a socket. With --detect the workers detect speech as well."""
    path, *flags = sys.argv[1:]
    lifeline = Lifeline()
    allow_many_descriptors()  # a connection for each worker
    detector: SpeechDetector | None = None
    if "--detect" in flags:
        from parakeet_stt.engines.silero_onnx import OnnxDetector

        detector = OnnxDetector()
    Path(path).unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX) as listening:
        listening.bind(path)
        Path(path).chmod(0o600)
        listening.listen(128)
        lifeline.say_ready()

        def beat() -> None:
            lifeline.beat()
            os.utime(path)  # fronts look at it: see `WorkerPool.is_served`

        worker.serve(listening, lifeline.socket, detector, beat)


if __name__ == "__main__":
    main()
