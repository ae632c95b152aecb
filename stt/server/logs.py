"""Knows what the log looks like and what it says at start-up. Does not know anything else."""

from __future__ import annotations

import logging
import sys

from stt.server.serving import ServedModel

logger = logging.getLogger("stt")
DEMO_NOTICE = """
================================================================================
  THIS IS NOT PARAKEET. The bundled tiny model is served.
  It was trained on a few hundred words of synthetic speech: it is for trying the
  service and for tests, and useless on recordings of people.
  To serve the real model:  STT_MODEL=nvidia/parakeet-tdt-0.6b-v2
================================================================================"""


def configure(level: str) -> None:
    """Log the service's own messages to standard error, one line each."""
    handler = logging.StreamHandler()
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    logger.handlers, logger.propagate = [handler], False
    logger.setLevel(level.upper())


def announce(model: ServedModel) -> None:
    """Say what is served, at any log level, so that nobody mistakes the tiny model for Parakeet."""
    print(f"parakeet-stt: serving {model.name} on {model.device} in {model.precision}", file=sys.stderr, flush=True)
    if model.is_demo:
        print(DEMO_NOTICE, file=sys.stderr, flush=True)
