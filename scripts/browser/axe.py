"""axe-core, which looks for barriers in a page: fetched from the npm registry for a check, and held to its hash."""

from __future__ import annotations

import base64
import hashlib
import subprocess
import tarfile
from pathlib import Path
from typing import Any

from playwright.sync_api import Page

VERSION = "4.14.1"  # MPL-2.0
INTEGRITY = "FHfa+lmNjQZfJz1q8wKqIDwC6DExcHt/pkjNQb09a3NPjCKg2rhu5qb2S4r76ASyFNNtuFooJpZe37OgudVGtQ=="  # SHA-512
# All that it knows: WCAG 2.0 to 2.2 of levels A, AA and AAA, and its own best practices.
OPTIONS = {
    "runOnly": ["wcag2a", "wcag2aa", "wcag2aaa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"],
    "rules": {"color-contrast-enhanced": {"enabled": True}},
    "resultTypes": ["violations"],
}


def fetch(folder: Path) -> str:
    """The script's source. Raises ValueError if the registry gives another one."""
    folder.mkdir(parents=True, exist_ok=True)
    archive = folder / f"axe-core-{VERSION}.tgz"
    if not archive.exists():
        subprocess.run(["npm", "pack", "--silent", f"axe-core@{VERSION}"], cwd=folder, check=True, capture_output=True)
    if base64.b64encode(hashlib.sha512(archive.read_bytes()).digest()).decode() != INTEGRITY:
        raise ValueError(f"{archive} is not axe-core {VERSION}")
    with tarfile.open(archive) as files:
        member = files.extractfile("package/axe.min.js")
        assert member
        return member.read().decode()


def violations(page: Page, source: str) -> list[str]:
    """What is wrong with the page as it is now: the rule, and the elements."""
    page.evaluate(source)
    found: list[Any] = page.evaluate("async (options) => (await axe.run(document, options)).violations", OPTIONS)
    return [
        f"{one['id']} ({one['impact']}): {node['target']} {node.get('failureSummary', '')}"
        for one in found
        for node in one["nodes"]
    ]
