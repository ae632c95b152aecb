"""Loaded by every Python that has this folder on PYTHONPATH: refuses all addresses but this machine's own.

What was refused is appended to the file that REFUSED_CONNECTIONS names.
"""

from __future__ import annotations

import os
import sys
from typing import Any

OWN = {"127.0.0.1", "::1", "localhost", "0.0.0.0", "::", "", None}


def _refuse(event: str, arguments: tuple[Any, ...]) -> None:
    if event == "socket.connect":
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # others are sockets of this machine
    elif event == "socket.getaddrinfo":
        host = arguments[0]
    else:
        return
    if (host.decode() if isinstance(host, bytes) else host) not in OWN:
        with open(os.environ["REFUSED_CONNECTIONS"], "a") as log:
            log.write(f"{event} {host}\n")
        raise OSError(f"no network in tests: {host}")


sys.addaudithook(_refuse)
