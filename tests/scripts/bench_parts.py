"""Parts of a benchmark that work, fail or end their process; they import next to nothing."""

from __future__ import annotations

import os
import sys
import time
from typing import Any

from scripts.bench.gpu.plan import Setup


def works(setup: Setup, seconds: float) -> dict[str, Any]:
    return {"seconds": seconds, "before": sorted(setup.rows_of)}


def raises(setup: Setup, seconds: float) -> None:
    raise ValueError("two\nlines")


def leaves(setup: Setup, seconds: float) -> None:
    sys.exit("no server")


def dies(setup: Setup, seconds: float) -> None:
    os._exit(7)


def hangs(setup: Setup, seconds: float) -> None:
    time.sleep(60)
