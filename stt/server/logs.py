"""Knows what the log looks like and what it says at start-up. Does not know anything else."""

from __future__ import annotations

import json
import logging
import sys
from contextvars import ContextVar
from datetime import UTC, datetime

from stt.server.serving import ServedModel

logger = logging.getLogger("stt")
request_id: ContextVar[str | None] = ContextVar("request_id", default=None)
DEMO_NOTICE = """
================================================================================
  THIS IS NOT PARAKEET. The bundled tiny model is served.
  It was trained on a few hundred words of synthetic speech: it is for trying the
  service and for tests, and useless on recordings of people.
  To serve the real model:  STT_MODEL=nvidia/parakeet-tdt-0.6b-v2
================================================================================"""


class _AsJson(logging.Formatter):
    """One JSON object a line, with the id of the request that it is about."""

    def format(self, record: logging.LogRecord) -> str:
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
        }
        if (asked := request_id.get()) is not None:
            line["request_id"] = asked
        if record.exc_info:
            line["exception"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def configure(level: str) -> None:
    """Log the service's own messages to standard error."""
    handler = logging.StreamHandler()
    handler.setFormatter(_AsJson())
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())


def announce(model: ServedModel) -> None:
    """Say what is served, at any log level, so that nobody mistakes the tiny model for Parakeet."""
    print(f"parakeet-stt: serving {model.name} on {model.device} in {model.precision}", file=sys.stderr, flush=True)
    if model.is_demo:
        print(DEMO_NOTICE, file=sys.stderr, flush=True)
