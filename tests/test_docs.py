"""The pages: what is made from the code is as the code has it, and what they link to is there."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from scripts.make import make_docs

ROOT = Path(__file__).parents[1]
PAGES = sorted([ROOT / "README.md", *ROOT.glob("docs/**/*.md")])


def test_the_page_of_operations_has_the_settings_and_metrics_that_there_are() -> None:
    page = make_docs.PAGE.read_text()
    assert make_docs.render(page) == page, "make docs"
    assert "| `STT_MODEL` |" in page
    assert "| `stt_queue_audio_seconds` | gauge |" in page


def test_a_page_without_a_place_for_a_part_is_refused() -> None:
    with pytest.raises(ValueError, match="settings"):
        make_docs.render("# Nothing\n")


def anchors(page: Path) -> set[str]:
    """What links may name of a page, as Markdown on the web spells it."""
    headings = re.findall("^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_what_a_page_links_to_is_there(page: Path) -> None:
    for link in re.findall(r"\]\(([^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        if "://" in path:
            continue
        target = (page.parent / path).resolve() if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
