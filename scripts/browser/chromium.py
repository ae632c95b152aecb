"""Starts the system's Chromium for a check of the page, and watches what the page does that it must not do."""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import urlsplit

from playwright.sync_api import BrowserContext, ConsoleMessage, Page, Route, sync_playwright

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update",
    "--disable-sync",
]  # fmt: skip
MICROPHONE = ["--use-fake-ui-for-media-stream", "--use-fake-device-for-media-stream"]
DESKTOP, PHONE = {"width": 1200, "height": 740}, {"width": 390, "height": 780}
# Run in the page before its own scripts.
WATCH_POLICY = """addEventListener("securitypolicyviolation", (event) =>
  console.error(`policy: ${event.violatedDirective} ${event.blockedURI} ${event.sourceFile}:${event.lineNumber}`));"""


def find_chromium() -> str | None:
    """The path of an installed Chromium."""
    return next(filter(None, map(shutil.which, NAMES)), None)


@dataclass
class Watch:
    """What went wrong in a browser.

    elsewhere: requests to other origins, which were stopped. errors: of the console. requests: how many there were.
    """

    origin: str
    elsewhere: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)
    requests: int = 0

    def guard(self, context: BrowserContext) -> None:
        """Stop and note each request of the context's pages that leaves the origin."""
        context.route("**/*", self._pass)
        context.add_init_script(WATCH_POLICY)
        context.on("console", self._hear)
        context.on("weberror", lambda error: self.errors.append(str(error.error)))

    def policy_reports(self) -> list[str]:
        """What the page's own policy has stopped."""
        return [one for one in self.errors if "policy: " in one or "Content Security Policy" in one]

    def _pass(self, route: Route) -> None:
        self.requests += 1
        address = urlsplit(route.request.url)
        if address.scheme in ("blob", "data") or f"{address.scheme}://{address.netloc}" == self.origin:
            route.continue_()
        else:
            self.elsewhere.append(route.request.url)
            route.abort()

    def _hear(self, message: ConsoleMessage) -> None:
        if message.type == "error":
            self.errors.append(message.text)


@contextmanager
def browser(
    url: str, *, arguments: Sequence[str] = (), watch: Watch | None = None, **options: Any
) -> Iterator[BrowserContext]:
    """A browser with a profile of its own, which is removed at the end. options: of Playwright's context."""
    executable = find_chromium()
    if executable is None:
        raise FileNotFoundError("no Chromium is installed: apt-get install chromium")
    with tempfile.TemporaryDirectory(prefix="stt-browser-", ignore_cleanup_errors=True) as profile:
        with sync_playwright() as playwright:
            context = playwright.chromium.launch_persistent_context(
                profile, executable_path=executable, args=[*ARGUMENTS, *arguments], base_url=url,
                **{"viewport": DESKTOP, **options},
            )  # fmt: skip
            try:
                if watch:
                    watch.guard(context)
                yield context
            finally:
                context.close()


def wait_until(page: Page, function: str, argument: Any = None, *, seconds: float = 60) -> None:
    """Wait until a function gives something true in the page.

    Playwright's own way evaluates a string in the page, which the page's policy forbids.
    """
    end = time.monotonic() + seconds
    while not page.evaluate(function, argument):
        assert time.monotonic() < end, f"not within {seconds:.0f} s: {function} with {argument!r}"
        page.wait_for_timeout(50)


def open_page(context: BrowserContext, view: str = "files") -> Page:
    """A new tab with a view of the page, once the server's state is there."""
    page = context.new_page()
    page.goto(f"/#{view}")
    page.locator("#state[data-state='ready']").wait_for()
    return page
