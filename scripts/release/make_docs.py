"""Knows which parts of docs/operations.md are made from the code, and puts them there. Does not know what they say.

    make docs

A part stands between `<!-- NAME: made by make docs -->` and `<!-- end -->`; whatever else is on the page stays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from parakeet_stt.server.metrics import Metrics
from parakeet_stt.server.settings import settings_table

PAGE = Path(__file__).parents[2] / "docs" / "operations.md"
PARTS: dict[str, Callable[[], str]] = {"settings": settings_table, "metrics": lambda: Metrics().table()}


def made(page: str) -> str:
    """The page with its parts as the code has them now. Raises ValueError if one has no place on it."""
    for name, part in PARTS.items():
        place = re.compile(rf"(<!-- {name}: made by make docs -->\n).*?(<!-- end -->)", re.DOTALL)
        text = part()
        page, count = place.subn(lambda found, text=text: f"{found[1]}\n{text}\n{found[2]}", page)  # type: ignore[misc]
        if count != 1:
            raise ValueError(f"{name} is to have one place on the page, it has {count}")
    return page


if __name__ == "__main__":
    PAGE.write_text(made(PAGE.read_text()))
