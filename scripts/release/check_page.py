"""Walks through the page in a real Chromium, against a real service. Run before a release: `apt-get install chromium`.

    python -m scripts.release.check_page                     # everything, about ten minutes; needs npm for axe-core
    python -m scripts.release.check_page --only looks --tour # the pictures of docs/tour.md, made again
    python -m scripts.release.check_page --only long --hours 2

Uploads, words, downloads, the queue, speakers, the microphone, what goes wrong, looks, a recording of hours. No
request may leave the origin, the page's own policy may stop nothing, and axe-core may find nothing. Prints a line for
each step; status 1 if anything was wrong.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from playwright.sync_api import BrowserContext
from playwright.sync_api import Error as BrowserError

from scripts.bench.serving import ROOT
from scripts.browser import axe, failures, files, long_file, looks, microphone, speakers
from scripts.browser.chromium import Watch, browser
from scripts.browser.service import Service

STEPS = ("files", "words", "queue", "speakers", "microphone", "refusals", "outage", "live outage", "looks", "long")
TOUR = ROOT / "docs" / "tour"
# Of all pictures, those that the page shows.
TOUR_PICTURES = {
    "files-light-desktop": "files", "microphone-light-desktop": "microphone", "server-dark-desktop": "server",
    "files-dark-phone": "phone", "speakers-light-desktop": "speakers",
}  # fmt: skip


def main() -> None:
    """Run the steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", choices=STEPS, action="append", help="a step; may be given again")
    parser.add_argument("--hours", type=float, default=2.0, help="length of the long recording")
    parser.add_argument("--port", type=int, default=3096, help="of the service that is started")
    parser.add_argument("--pictures", type=Path, help="a folder for the pictures of all views")
    parser.add_argument("--tour", action="store_true", help="write the pictures of docs/tour.md")
    given = parser.parse_args()
    wanted = given.only or STEPS
    with tempfile.TemporaryDirectory(prefix="stt-page-") as folder:
        work = Path(folder)
        pictures = given.pictures or work / "pictures"
        pictures.mkdir(parents=True, exist_ok=True)
        wrong = _run(wanted, work, pictures, given)
        if given.tour:
            TOUR.mkdir(exist_ok=True)
            for name, shown in TOUR_PICTURES.items():
                (TOUR / f"{shown}.png").write_bytes((pictures / f"{name}.png").read_bytes())
    sys.exit(wrong)


def _run(wanted: list[str] | tuple[str, ...], work: Path, pictures: Path, given: argparse.Namespace) -> int:
    wrong = 0

    def step(name: str, run: Callable[[BrowserContext], str], url: str, *arguments: str) -> None:
        def in_browser() -> str:
            watch = Watch(url)
            with browser(url, watch=watch, arguments=arguments) as context:
                said = run(context)
            assert not watch.elsewhere, f"requests elsewhere: {watch.elsewhere}"
            assert not watch.policy_reports(), watch.policy_reports()
            return f"{said}; {watch.requests} requests, none elsewhere, none stopped by the policy"

        report(name, in_browser)

    def report(name: str, check: Callable[[], str]) -> None:
        nonlocal wrong
        if name not in wanted:
            return
        began = time.monotonic()
        try:
            said = check()
        except (AssertionError, BrowserError) as exc:
            wrong = 1
            said = f"WRONG: {exc}"
        print(f"{name:12} {time.monotonic() - began:5.0f} s  {said}", flush=True)

    with Service(given.port, work / "log", STT_DIARIZER="sortformer-tiny") as service:
        url = service.url
        step("files", lambda context: files.check_uploads(context, url), url)
        step("words", lambda context: files.check_probabilities(context, work), url)
        step("queue", lambda context: files.check_queue(context, url, work), url)
        step("speakers", lambda context: speakers.check_speakers(context, url), url)
        step("microphone", lambda context: microphone.check_captions(context, url), url, *microphone.arguments(work))
        if "looks" in wanted:
            source = axe.fetch(ROOT / "build" / "axe-core")
            report("looks", lambda: looks.check_looks(url, pictures, work, source))
        step("long", lambda context: long_file.check_long_file(context, work, given.hours), url)
        step("outage", lambda context: failures.check_outage(context, service, work), url)
        repeated = microphone.arguments(work, repeat=True)
        step("live outage", lambda context: failures.check_live_outage(context, service), url, *repeated)
    if "refusals" in wanted:
        limits = {"STT_API_KEYS": failures.KEY, "STT_MAX_UPLOAD_BYTES": str(failures.MAX_BYTES)}
        with Service(given.port, work / "log", **limits) as guarded:
            step("refusals", lambda context: failures.check_refusals(context, work), guarded.url)
    return wrong


if __name__ == "__main__":
    main()
