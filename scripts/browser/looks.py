"""Shows each view in light and dark, wide and narrow: looks for barriers in it, and takes its picture."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import soundfile
from playwright.sync_api import BrowserContext, Page

from scripts.browser import axe, microphone
from scripts.browser.chromium import DESKTOP, PHONE, browser, open_page, wait_until
from scripts.browser.files import NAMES, SAMPLES, choose, click_word, row, upload, wait_for, write_noisy
from scripts.browser.speakers import tell_apart

SHAPES: dict[str, dict[str, Any]] = {
    f"{scheme}-{device}": {"color_scheme": scheme, "viewport": size, "has_touch": size is PHONE}
    for scheme in ("light", "dark")
    for device, size in (("desktop", DESKTOP), ("phone", PHONE))
}

TO_TRANSCRIPT = """() => {
  const top = document.querySelector(".detail").getBoundingClientRect().top + scrollY;
  scrollTo(0, top > innerHeight / 2 ? top - document.querySelector(".top").offsetHeight - 16 : 0);
}"""


def check_looks(url: str, pictures: Path, work: Path, source: str) -> str:
    """Visit everything in every shape. pictures: a folder to write to. Raises AssertionError with what is wrong."""
    wrong: list[str] = []
    count = 0
    for shape, options in SHAPES.items():
        with browser(url, arguments=microphone.arguments(work, repeat=True), **options) as context:
            for name, page in _views(context, work):
                count += 1
                wide = page.evaluate("document.documentElement.scrollWidth - innerWidth")
                if wide > 0:
                    wrong.append(f"{shape} {name}: {wide} pixels too wide")
                page.screenshot(path=pictures / f"{name}-{shape}.png", animations="disabled")
                wrong += [f"{shape} {name}: {one}" for one in axe.violations(page, source)]
    assert not wrong, "\n".join(wrong)
    return f"{count} views without a violation"


def _views(context: BrowserContext, work: Path) -> Iterator[tuple[str, Page]]:
    page = open_page(context)
    yield "empty", page
    silence = work / "no sound.wav"
    soundfile.write(silence, [0.0] * 16_000, 16_000)
    notes = work / "notes.mp3"
    notes.write_text("This is no sound at all.\n" * 100)
    noisy = write_noisy(NAMES[2], work, 0.07)
    upload(page, SAMPLES / NAMES[0], SAMPLES / NAMES[1], noisy, silence, notes)
    yield "queue", page
    wait_for(page, {noisy.name: "done", notes.name: "failed", silence.name: "done"})
    choose(page, notes.name)
    yield "failed", page
    choose(page, noisy.name)
    page.locator(".play:enabled").wait_for()
    page.wait_for_timeout(500)  # the waveform
    page.evaluate("document.querySelector('audio').muted = true")
    click_word(page, 35)
    page.wait_for_timeout(700)
    page.locator(".play").click()
    _rest(page)
    yield "files", page
    tell_apart(page)
    page.locator(".play:enabled").wait_for()
    page.get_by_label("Name of speaker B").fill("Ann")
    page.wait_for_timeout(500)
    _rest(page)
    yield "speakers", page
    row(page, notes.name).locator(".end").click()
    page.goto("/#microphone")
    page.click("#record")
    page.locator(".captions .text").nth(2).wait_for(timeout=60_000)
    wait_until(page, "() => document.getElementById('open-caption').textContent.length > 12")
    yield "microphone", page
    page.click("#record")
    page.locator("#live-actions").wait_for(timeout=60_000)
    page.goto("/#server")
    page.wait_for_timeout(300)
    yield "server", page
    page.evaluate("document.getElementById('key-dialog').showModal()")
    yield "key", page


def _rest(page: Page) -> None:
    """Where no button is half under the head of the page, which axe-core would find too small: at the top.

    On a phone, where the list of files is above the transcript, at the transcript.
    """
    page.evaluate(TO_TRANSCRIPT)
    page.mouse.move(5, 5)
