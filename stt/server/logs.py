"""Knows what the log looks like and what it says at start-up. Does not know anything else."""

from __future__ import annotations

import logging

from stt.server.serving import ServedModel

logger = logging.getLogger("stt")
DEMO_NOTICE = """
================================================================================
  THIS IS NOT PARAKEET. STT_MODEL is not set, so the bundled tiny model is served.
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
    """Say what is served, so that nobody mistakes the tiny model for Parakeet."""
    logger.info("serving %s on %s in %s", model.name, model.device, model.precision)
    if model.is_demo:
        logger.warning(DEMO_NOTICE)
