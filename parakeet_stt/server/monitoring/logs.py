"""The log: its format, and what is printed at start."""

from __future__ import annotations

import ipaddress
import json
import logging
import os
import socket
import sys
from collections.abc import Sequence
from contextvars import ContextVar
from datetime import UTC, datetime

from parakeet_stt.protocols import Recognizer
from parakeet_stt.server.settings import Settings

logger = logging.getLogger("parakeet_stt")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
DEMO_NOTICE = """
================================================================================
  THIS IS NOT PARAKEET. The bundled tiny model is served.
  It was trained on a few hundred words of synthetic speech: it is for trying the
  service and for tests, and useless on recordings of people.
  To serve the real model:  STT_MODEL=nvidia/parakeet-tdt-0.6b-v2
================================================================================"""


EXPOSED_NOTICE = """
================================================================================
  ANYBODY WHO REACHES {address} MAY USE THIS SERVICE: no API keys are set.
  Set STT_API_KEYS or STT_API_KEYS_FILE, or listen on 127.0.0.1 only.
================================================================================"""


class _JsonFormatter(logging.Formatter):
    """One JSON object a line, with the id of the request that it belongs to."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (current := request_id.get()) is not None:
            line["request_id"] = current
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str) -> None:
    """Log the service's own messages to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_JsonFormatter())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())


def announce(name: str, recognizer: Recognizer, *, is_demo: bool) -> None:
    """Print what is served, at any log level, so that nobody mistakes the tiny model for Parakeet."""
    print(
        f"parakeet-stt: serving {name} on {recognizer.device} in {recognizer.precision}: {recognizer.precision_reason}",
        file=sys.stderr,
        flush=True,
    )
    if is_demo:
        print(DEMO_NOTICE, file=sys.stderr, flush=True)


def warn_if_exposed(settings: Settings, arguments: Sequence[str]) -> None:
    """Print a warning, at any log level, if this worker listens where others can reach it and needs no key.

    arguments: of this process; BentoML hands its workers the socket as `--fd N`.
    """
    if settings.key_hashes or "--fd" not in arguments:
        return
    with socket.socket(fileno=os.dup(int(arguments[arguments.index("--fd") + 1]))) as listening:
        address = listening.getsockname()
    if listening.family != socket.AF_UNIX and not ipaddress.ip_address(address[0]).is_loopback:
        print(EXPOSED_NOTICE.format(address=f"{address[0]}:{address[1]}"), file=sys.stderr, flush=True)
