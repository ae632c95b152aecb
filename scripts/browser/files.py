"""Walks through the view of files: uploads, words, downloads, the queue, and what is there after a reload."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import soundfile
import srt
import webvtt
from playwright.sync_api import BrowserContext, Page

from scripts.bench.serving import ROOT
from scripts.browser.chromium import open_page, wait_until
from scripts.browser.service import have_same_segments

SAMPLES = ROOT / "models" / "parakeet-tdt-tiny" / "samples"
NAMES = ("short.flac", "two-sentences.flac", "two-minutes.flac")
WAIT_MS = 180_000.0
SEEK_SECONDS = 0.05  # between a word's start and where the player is after a click on it
# Note where the player is, when it begins to seek and when it has arrived.
WATCH_SEEKS = """() => {
  window.sought = [];
  const audio = document.querySelector("audio");
  for (const kind of ["seeking", "seeked"]) audio.addEventListener(kind, () => window.sought.push(audio.currentTime));
}"""
# Scroll to a word, by its index; returns the middle of its first line in the window.
FIND_WORD = """(index) => {
  const { paragraph } = [...document.querySelectorAll(".transcript p")].findLast((one) => one.paragraph.first <= index);
  const before = paragraph.text.textContent.split(" ").slice(0, index - paragraph.first).join(" ");
  const nodes = document.createTreeWalker(paragraph.text, NodeFilter.SHOW_TEXT);
  let [left, node] = [before.length + (before ? 1 : 0), nodes.nextNode()];
  for (; left >= node.length; node = nodes.nextNode()) left -= node.length;
  const range = new Range();
  range.setStart(node, left);
  range.setEnd(node, left + 1);
  const find = () => range.getClientRects()[0];
  scrollBy({ top: find().top - innerHeight / 2, behavior: "instant" });
  const { left: x, top, width, height } = find();
  return { x: x + width / 2, y: top + height / 2 };
}"""
LIT = """() => [...(CSS.highlights.get("now") ?? [])].map((range) => range.toString()).join(" ")"""


def ask(url: str, path: Path, response_format: str) -> httpx.Response:
    """The same file from the API."""
    fields: dict[str, Any] = {"model": "whisper-1", "response_format": response_format}
    if response_format == "verbose_json":
        fields["timestamp_granularities[]"] = ["word", "segment"]
    with path.open("rb") as file:
        answer = httpx.post(f"{url}/v1/audio/transcriptions", data=fields, files={"file": file}, timeout=300)
    return answer.raise_for_status()


def write_noisy(name: str, folder: Path, level: float) -> Path:
    """A sample with noise of this standard deviation, of which the model is less certain."""
    sound, rate = soundfile.read(SAMPLES / name)
    noisy = folder / f"noisy-{name}"
    noise = level * np.random.default_rng(1).standard_normal(len(sound))
    soundfile.write(noisy, np.clip(sound + noise, -1, 1), rate)
    return noisy


def upload(page: Page, *paths: Path) -> None:
    """Choose files."""
    page.set_input_files("#input-files", [str(path) for path in paths])


def wait_for(page: Page, states: Mapping[str, str]) -> None:
    """Wait until each of these files is in its state."""
    for name, state in states.items():
        row(page, name, f"[data-state='{state}']").wait_for(timeout=WAIT_MS)


def row(page: Page, name: str, more: str = "") -> Any:
    """The list's entry of a file."""
    return page.locator(f".jobs li{more}").filter(has_text=name)


def choose(page: Page, name: str) -> None:
    """Show a file."""
    row(page, name).locator(".row").click()
    page.locator(".detail h2").filter(has_text=name).wait_for()


def text_of(page: Page) -> str:
    """All words that are shown."""
    return " ".join(page.locator(".transcript .text").all_text_contents())


def click_word(page: Page, index: int) -> None:
    """Bring a word to the middle of the window, and click on it."""
    place = page.evaluate(FIND_WORD, index)
    page.mouse.click(place["x"], place["y"])


def lit(page: Page) -> str:
    """The word that is lit up."""
    text: str = page.evaluate(LIT)
    return text


def check_uploads(context: BrowserContext, url: str) -> str:
    """Upload each sample; the words, the player and the downloads are the API's."""
    page = open_page(context)
    upload(page, *(SAMPLES / name for name in NAMES))
    wait_for(page, dict.fromkeys(NAMES, "done"))
    furthest = 0.0
    for name in NAMES:
        choose(page, name)
        answer = ask(url, SAMPLES / name, "verbose_json").json()
        assert text_of(page) == answer["text"], name
        furthest = max(furthest, _check_seeks(page, answer["words"]))
        _check_downloads(page, url, SAMPLES / name, answer)
    page.reload()
    wait_for(page, dict.fromkeys(NAMES, "done"))
    choose(page, NAMES[1])
    assert text_of(page) == ask(url, SAMPLES / NAMES[1], "verbose_json").json()["text"]
    page.locator(".play:enabled").wait_for()
    row(page, NAMES[0]).locator(".end").click()
    page.reload()
    wait_for(page, {NAMES[1]: "done"})
    assert row(page, NAMES[0]).count() == 0
    page.close()
    return f"{len(NAMES)} samples; the player is at most {1000 * furthest:.0f} ms beside a clicked word"


def check_probabilities(context: BrowserContext, folder: Path) -> str:
    """Words that the model is not certain of are marked, and show their number."""
    page = open_page(context)
    noisy = write_noisy(NAMES[1], folder, 0.1)
    upload(page, noisy)
    wait_for(page, {noisy.name: "done"})
    with page.expect_download() as waiting:
        page.locator(".detail [data-format='json']").click()
    words = json.loads(Path(waiting.value.path()).read_text())["words"]
    low = [word for word in words if word["probability"] < 0.5]
    marked = page.locator(".transcript .low")
    assert low
    assert marked.all_text_contents() == [word["word"] for word in low]
    marked.first.hover()
    page.locator("#tip").filter(has_text=f"probability {low[0]['probability']:.2f}").wait_for()
    page.close()
    return f"{len(low)} of {len(words)} words in noise are marked"


def check_queue(context: BrowserContext, url: str, folder: Path) -> str:
    """Three files in a queue, of which one is cancelled before its turn and one while it is transcribed."""
    page = open_page(context)
    names = [f"queued-{number}.flac" for number in range(4)]
    for name in names:
        (folder / name).write_bytes((SAMPLES / NAMES[2]).read_bytes())
    upload(page, *(folder / name for name in names))
    row(page, names[2]).get_by_label(f"Cancel {names[2]}").click()
    row(page, names[1]).get_by_label(f"Cancel {names[1]}").click()
    wait_for(page, dict(zip(names, ("done", "cancelled", "cancelled", "done"), strict=True)))
    expected = ask(url, SAMPLES / NAMES[2], "verbose_json").json()["text"]
    for name in (names[0], names[3]):
        choose(page, name)
        assert text_of(page) == expected, name
    page.close()
    return "two of four cancelled; the others are whole"


def _check_seeks(page: Page, words: Sequence[Mapping[str, Any]]) -> float:
    """Click on words all over the recording. Returns the largest distance in seconds."""
    page.locator(".play:enabled").wait_for()
    page.evaluate(WATCH_SEEKS)
    furthest = 0.0
    for index in {len(words) // 2, 1, len(words) - 1, len(words) // 3}:
        page.evaluate("() => { document.querySelector('audio').pause(); window.sought = []; }")
        click_word(page, index)
        wait_until(page, "() => window.sought.length >= 2")
        wait_until(page, f"(word) => ({LIT})() === word", words[index]["word"])
        for place in page.evaluate("window.sought.slice(0, 2)"):
            furthest = max(furthest, abs(place - words[index]["start"]))
    page.evaluate("document.querySelector('audio').pause()")
    assert furthest <= SEEK_SECONDS, furthest
    return furthest


def _check_downloads(page: Page, url: str, path: Path, answer: Mapping[str, Any]) -> None:
    """Each download is what the API writes, and a strict parser reads it."""
    for ending in ("txt", "srt", "vtt", "json"):
        with page.expect_download() as waiting:
            page.locator(f".detail [data-format='{ending}']").click()
        assert waiting.value.suggested_filename == f"{path.stem}.{ending}"
        content = Path(waiting.value.path()).read_text()
        if ending != "json":
            assert content == ask(url, path, "text" if ending == "txt" else ending).text, ending
            continue
        parsed = json.loads(content)
        assert all(0 < word["probability"] <= 1 for word in parsed["words"])
        words = [{key: word[key] for key in ("word", "start", "end")} for word in parsed["words"]]
        assert (words, parsed["text"]) == (answer["words"], answer["text"])
        assert have_same_segments(parsed, answer), (parsed["segments"], answer["segments"])
        assert len(words) == len(re.findall(r"\S+", answer["text"]))
    cues = list(srt.parse(ask(url, path, "srt").text, ignore_errors=False))
    captions = webvtt.from_buffer(io.StringIO(ask(url, path, "vtt").text)).captions
    assert len(cues) == len(captions) == len(answer["segments"])
