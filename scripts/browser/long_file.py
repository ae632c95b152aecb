"""Uploads a recording of hours: how much memory the tab takes, and how smoothly its words scroll."""

from __future__ import annotations

import threading
import time
from pathlib import Path

import numpy as np
import numpy.typing as npt
import psutil  # type: ignore[import-untyped]
import soundfile
from playwright.sync_api import BrowserContext, Page

from scripts.browser.chromium import open_page
from scripts.browser.files import SAMPLES, upload

MAX_BYTES = 300e6
SCROLL_SECONDS = 5
ROUNDS = 3  # of the transcript and of plain text in turn
Frames = npt.NDArray[np.float64]  # the length of each in milliseconds
# Scroll by 40 pixels a frame for some seconds. Returns the length of each frame in milliseconds.
SCROLL = """(seconds) => new Promise((resolve) => {
  const frames = [];
  let before;
  const end = performance.now() + 1000 * seconds;
  const step = (now) => {
    if (before !== undefined) frames.push(now - before);
    before = now;
    scrollBy(0, 40);
    if (now < end) requestAnimationFrame(step);
    else resolve(frames);
  };
  requestAnimationFrame(step);
})"""


# The same words as plain paragraphs, in a tab without scripts: what this Chromium gives on this machine.
PLAIN = """<!doctype html><style>body { font: 18px/1.72 serif; max-width: 66ch; margin: auto }</style>%s"""


class Memory:
    """Watches the browser's tab: the largest of its processes of that kind. most: in bytes, without what is shared."""

    def __init__(self) -> None:
        self.most = self.now = 0
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()

    def close(self) -> None:
        """Stop watching."""
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            found = [0]
            for process in psutil.Process().children(recursive=True):
                try:
                    if "--type=renderer" in process.cmdline():
                        found.append(process.memory_full_info().uss)
                except psutil.Error:
                    continue
            self.now = max(found)
            self.most = max(self.most, self.now)


def check_long_file(context: BrowserContext, folder: Path, hours: float) -> str:
    """Upload it as wav, wait for its words, scroll through them."""
    sound, rate = soundfile.read(SAMPLES / "two-minutes.flac", dtype="int16")
    recording = folder / "long.wav"
    repeats = round(hours * 3600 * rate / len(sound))
    with soundfile.SoundFile(recording, "w", rate, 1, "PCM_16") as file:
        for _ in range(repeats):
            file.write(sound)
    page = open_page(context)
    memory = Memory()
    try:
        began = time.monotonic()
        upload(page, recording)
        page.locator(".jobs li[data-state='done']").wait_for(timeout=1_500_000)
        seconds = time.monotonic() - began
        page.locator(".play:enabled").wait_for()
        time.sleep(2)
        elements = page.evaluate("document.querySelectorAll('.transcript *').length")
        text = page.locator(".transcript .text").all_text_contents()
        rounds = [(_scroll(page), _scroll_plain(context, text)) for _ in range(ROUNDS)]
    finally:
        memory.close()
    words = page.evaluate("document.querySelector('.meta').textContent")
    page.close()
    assert memory.most < MAX_BYTES, memory.most
    ours, plain = (_describe(np.concatenate(frames)) for frames in zip(*rounds, strict=True))
    length, size = repeats * len(sound) / rate / 3600, recording.stat().st_size / 1e6
    return (
        f"{length:.1f} h, {size:.0f} MB in {seconds:.0f} s ({words}); tab at most {memory.most / 1e6:.0f} MB; "
        f"its words are {elements} elements; scrolling {ours}; the same words as plain paragraphs {plain}"
    )


def _scroll(page: Page) -> Frames:
    page.bring_to_front()
    page.evaluate("scrollTo(0, 0)")
    page.wait_for_timeout(1000)
    return np.array(page.evaluate(SCROLL, SCROLL_SECONDS))


def _scroll_plain(context: BrowserContext, paragraphs: list[str]) -> Frames:
    page = context.new_page()
    page.set_content(PLAIN % "".join(f"<p>{one}</p>" for one in paragraphs))
    frames = _scroll(page)
    page.close()
    return frames


def _describe(frames: Frames) -> str:
    return f"{1000 * len(frames) / frames.sum():.0f} frames a second, 95 % within {np.percentile(frames, 95):.0f} ms"
