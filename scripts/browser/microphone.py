"""Walks through the view of the microphone, with Chromium's own in place of a real one."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import soundfile
from playwright.sync_api import BrowserContext, Page

from scripts.browser.chromium import MICROPHONE, open_page, wait_until
from scripts.browser.files import SAMPLES, ask

SAMPLE = SAMPLES / "two-sentences.flac"
SILENCE_SECONDS = (1.0, 5.0)  # before and after the sample
WAIT_MS = 60_000.0


def arguments(folder: Path, *, repeat: bool = False) -> list[str]:
    """What makes Chromium's microphone play the sample, once or again and again."""
    sound, rate = soundfile.read(SAMPLE)
    before, after = (np.zeros(round(seconds * rate)) for seconds in SILENCE_SECONDS)
    file = folder / f"microphone-{repeat}.wav"
    soundfile.write(file, np.concatenate([before, sound, after]), rate)
    return [*MICROPHONE, f"--use-file-for-fake-audio-capture={file}{'' if repeat else '%noloop'}"]


def texts(page: Page) -> list[str]:
    """The captions that are final."""
    return page.locator(".captions .text").all_text_contents()


def check_captions(context: BrowserContext, url: str) -> str:
    """Speak the sample; its captions are its text, and are there after a reload."""
    expected: str = ask(url, SAMPLE, "verbose_json").json()["text"]
    page = open_page(context, "microphone")
    page.click("#record")
    wait_until(page, "() => document.getElementById('open-caption').textContent")
    wait_until(page, "(length) => [...document.querySelectorAll('.captions .text')].map((one) => one.textContent)"
               ".join(' ').length >= length", len(expected))  # fmt: skip
    page.click("#record")
    page.locator("#live-actions").wait_for(timeout=WAIT_MS)
    assert " ".join(texts(page)) == expected, texts(page)
    delays = [float(text.removesuffix(" s")) for text in page.locator(".captions .delay").all_text_contents()]
    with page.expect_download() as waiting:
        page.locator("#live-actions [data-format='json']").click()
    parsed = json.loads(Path(waiting.value.path()).read_text())
    assert parsed["text"] == expected
    assert all(segment["end"] > segment["start"] for segment in parsed["segments"])
    page.reload()
    page.locator(".captions .text").first.wait_for()
    assert " ".join(texts(page)) == expected
    page.close()
    return f"{len(delays)} captions, {min(delays):.2f} to {max(delays):.2f} s after the end of speech"
