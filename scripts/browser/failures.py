"""Shows the page what goes wrong: each failure has its sentence, and nothing that was final is lost."""

from __future__ import annotations

import itertools
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import BrowserContext, expect

from scripts.browser import microphone
from scripts.browser.chromium import open_page
from scripts.browser.files import SAMPLES, WAIT_MS, ask, choose, row, text_of, upload, wait_for
from scripts.browser.service import Service

KEY = "a-key-of-this-check"
MAX_BYTES = 1_000_000
LONG_MINUTES = 14  # of a recording that is transcribed while the server goes away


def check_refusals(context: BrowserContext, folder: Path) -> str:
    """A wrong key, a file that is too large, and one that is no audio. Of a server with `KEY` and `MAX_BYTES`."""
    page = context.new_page()
    page.goto("/")
    dialog = page.locator("#key-dialog")
    dialog.wait_for()
    page.fill("#key", "another-key")
    page.press("#key", "Enter")
    expect(dialog).to_contain_text("does not know this key")
    page.fill("#key", KEY)
    page.click("#key-use")
    page.locator("#state[data-state='ready']").wait_for()
    upload(page, SAMPLES / "two-minutes.flac")
    wait_for(page, {"two-minutes.flac": "failed"})
    expect(page.locator(".status")).to_contain_text("this server takes at most 1.0 MB")
    notes = folder / "notes.mp3"
    notes.write_text("This is no sound at all.\n" * 100)
    upload(page, notes)
    wait_for(page, {"notes.mp3": "failed"})
    choose(page, "notes.mp3")
    said = page.locator(".status").inner_text()
    assert "(request req_" in said, said
    upload(page, SAMPLES / "short.flac")
    wait_for(page, {"short.flac": "done"})
    page.evaluate("sessionStorage.clear()")
    page.evaluate("location.hash = '#server'")  # asks the server, which asks for the key again
    dialog.wait_for()
    page.close()
    return f"a wrong key, an oversized file; no audio: “{said}”"


def check_outage(context: BrowserContext, service: Service, folder: Path) -> str:
    """The server fails in the middle of a recording and comes back."""
    sound, rate = soundfile.read(SAMPLES / "two-minutes.flac")
    recording = folder / "long.flac"
    soundfile.write(recording, np.tile(sound, LONG_MINUTES // 2), rate)
    expected = ask(service.url, recording, "verbose_json").json()["text"]
    page = open_page(context)
    upload(page, recording)
    page.locator(".transcript .text").first.wait_for(timeout=WAIT_MS)
    before = text_of(page)
    service.kill()
    wait_for(page, {"long.flac": "away"})
    page.locator("#state[data-state='away']").wait_for()
    said = page.locator(".status").inner_text()
    assert "does not answer" in said, said
    kept = text_of(page)
    assert kept.startswith(before)
    assert expected.startswith(kept)
    service.start()
    row(page, "long.flac", "[data-state='transcribing']").wait_for(timeout=WAIT_MS)
    assert text_of(page).startswith(kept)
    wait_for(page, {"long.flac": "done"})
    assert text_of(page) == expected
    page.close()
    return f"“{said}”, then all {len(expected.split())} words"


def check_live_outage(context: BrowserContext, service: Service) -> str:
    """The server fails while somebody speaks, and comes back. The microphone repeats its sentences."""
    whole = ask(service.url, microphone.SAMPLE, "verbose_json").json()["text"]
    page = open_page(context, "microphone")
    page.click("#record")
    page.locator(".captions .text").first.wait_for(timeout=WAIT_MS)
    before = microphone.texts(page)
    service.kill()
    expect(page.locator("#live-state")).to_contain_text("goes on when the server is back", timeout=WAIT_MS)
    said = page.locator("#live-state").inner_text()
    service.start()
    expect(page.locator("#live-state")).to_have_text("Listening", timeout=WAIT_MS)
    seen = len(microphone.texts(page))
    page.locator(".captions .text").nth(seen + 2).wait_for(timeout=WAIT_MS)
    page.click("#record")
    page.locator("#live-actions").wait_for(timeout=WAIT_MS)
    after = microphone.texts(page)
    assert after[: len(before)] == before
    # Each sentence of the sample came, none of them twice in a row: what was said meanwhile was kept and sent again.
    sentences = [f"{one}." for one in whole.rstrip(".").split(". ")]
    known = [sentences.index(one) for one in after if one in sentences]
    assert all(first != second for first, second in itertools.pairwise(known)), after
    page.close()
    return f"“{said}”, then {len(after) - seen} more captions"
