"""The check of real clients: its page has what its scripts run. The clients themselves are run before a release."""

from __future__ import annotations

import pytest

from scripts.release.check_clients.__main__ import PAGE
from scripts.release.check_clients.clients import CLIENTS, CURL, Client


@pytest.mark.parametrize("client", CLIENTS, ids=lambda client: client.name)
def test_the_page_has_the_version_and_the_lines_that_were_run(client: Client) -> None:
    page = PAGE.read_text()
    assert f"| {client.name} | {client.version} |" in page
    assert client.configuration() in page
    assert CURL in page


def test_the_page_says_only_right() -> None:
    rows = [line for line in PAGE.read_text().splitlines() if line.startswith("| ")][1:]
    assert len(rows) == len(CLIENTS) + 1
    assert all(row.endswith("| right |") for row in rows)
