"""Has the page tell the speakers of a conversation apart, names them, and compares what is exported with the API."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import httpx
from playwright.sync_api import BrowserContext, Page, expect

from scripts.bench.serving import ROOT
from scripts.browser.chromium import open_page
from scripts.browser.files import text_of, upload, wait_for

TALK = ROOT / "models" / "sortformer-tiny" / "samples" / "two-voices.flac"
NAME = "Zoë <Ann>"  # in WebVTT it has to be escaped


def ask(url: str, **fields: str) -> list[dict[str, Any]]:
    """All events that the API sends about the conversation."""
    data: dict[str, Any] = {"model": "gpt-4o-transcribe-diarize", "response_format": "diarized_json", "stream": "true"}
    with TALK.open("rb") as file:
        answer = httpx.post(
            f"{url}/v1/audio/transcriptions", data={**data, **fields}, files={"file": file}, timeout=300
        )
    lines = answer.raise_for_status().text.split("\n\n")
    return [json.loads(line.removeprefix("data: ")) for line in lines if line]


def tell_apart(page: Page) -> None:
    """Upload the conversation, and wait for its speakers."""
    page.locator("[data-option='speakers']").select_option("apart")
    upload(page, TALK)
    wait_for(page, {TALK.name: "done"})


def check_speakers(context: BrowserContext, url: str) -> str:
    """Each paragraph says who speaks; a name that is given is shown, exported, and there after a reload."""
    segments = [event for event in ask(url) if event["type"] == "transcript.text.segment"]
    labels = list(dict.fromkeys(segment["speaker"] for segment in segments))
    assert labels == ["A", "B"]
    page = open_page(context)
    tell_apart(page)
    assert text_of(page) == " ".join(segment["text"] for segment in segments)
    assert _said(page) == _turns(segments, {"A": "Speaker A", "B": "Speaker B"})
    assert _download(page, "txt") == _dialogue(segments, {"A": "Speaker A", "B": "Speaker B"})
    names = {"A": "Speaker A", "B": NAME}
    field = page.get_by_label("Name of speaker B")
    field.fill(f"  {NAME}\t")
    assert _said(page) == _turns(segments, names)
    field.press("Enter")
    for _ in range(2):
        _check_exports(page, segments, names)
        page.reload()
        wait_for(page, {TALK.name: "done"})
        expect(page.get_by_label("Name of speaker B")).to_have_value(NAME)
        assert _said(page) == _turns(segments, names)
    page.get_by_label("Name of speaker B").fill("")
    assert _said(page) == _turns(segments, {"A": "Speaker A", "B": "Speaker B"})
    page.close()
    return f"{len(segments)} segments of {len(labels)} speakers, of whom one has a name"


def _said(page: Page) -> list[tuple[str, str]]:
    """Who speaks and what is said, of each turn that is shown."""
    rows = [(one.locator(".who").inner_text(), one.locator(".text").inner_text())
            for one in page.locator(".transcript p").all()]  # fmt: skip
    return _merge(rows)


def _turns(segments: list[dict[str, Any]], names: dict[str, str]) -> list[tuple[str, str]]:
    return _merge([(names[segment["speaker"]], segment["text"]) for segment in segments])


def _merge(rows: list[tuple[str, str]]) -> list[tuple[str, str]]:
    """Rows one after another with the same speaker as one."""
    merged: list[tuple[str, str]] = []
    for who, text in rows:
        if merged and merged[-1][0] == who:
            merged[-1] = (who, f"{merged[-1][1]} {text}")
        else:
            merged.append((who, text))
    return merged


def _dialogue(segments: list[dict[str, Any]], names: dict[str, str]) -> str:
    return "".join(f"{who}: {text}\n" for who, text in _turns(segments, names))


def _check_exports(page: Page, segments: list[dict[str, Any]], names: dict[str, str]) -> None:
    assert _download(page, "txt") == _dialogue(segments, names)
    subtitles, captions = _download(page, "srt"), _download(page, "vtt")
    assert subtitles.count("Speaker A: ") == sum(segment["speaker"] == "A" for segment in segments)
    assert subtitles.count(f"{NAME}: ") == sum(segment["speaker"] == "B" for segment in segments)
    assert captions.count("<v A>") == sum(segment["speaker"] == "A" for segment in segments)
    assert captions.count("<v Zoë &lt;Ann&gt;>") == sum(segment["speaker"] == "B" for segment in segments)
    body = json.loads(_download(page, "json"))
    called = {"A": "A", "B": NAME}
    assert body["segments"] == [{**segment, "speaker": called[segment["speaker"]]} for segment in segments]
    assert {word["speaker"] for word in body["words"]} == set(called.values())
    assert " ".join(word["word"] for word in body["words"]) == body["text"]
    assert all(0 < word["probability"] <= 1 for word in body["words"])


def _download(page: Page, ending: str) -> str:
    with page.expect_download() as waiting:
        page.locator(f".detail [data-format='{ending}']").click()
    return Path(waiting.value.path()).read_text()
