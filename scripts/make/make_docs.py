"""Writes the parts of docs/operations.md that are made from the code: the tables of settings and of metrics.

    python -m scripts.make.make_docs       # or: make docs

A part is between `<!-- NAME: made by make docs -->` and `<!-- end -->`. The rest of the page stays as it is.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from parakeet_stt.server.monitoring.metrics import Metrics
from parakeet_stt.server.settings import settings_table

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PARTS: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": lambda: Metrics().table()}


def render(page: str) -> str:
    """The page with its parts as the code has them now. Raises ValueError unless each part has one place on it."""
    for name, part in PARTS.items():
        place = re.compile(rf"(<!-- {name}: made by make docs -->\n).*?(<!-- end -->)", re.DOTALL)
        text = part()
        page, count = place.subn(lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{name} needs one place on the page, and has {count}")
    return page


if __name__ == "__main__":
    PAGE.write_text(render(PAGE.read_text()))
