"""The page in a real browser, where one is installed; `scripts.release.check_page` is the whole walk."""

from __future__ import annotations

import pytest

from scripts.browser import chromium
from tests.conftest import Sample, Server

pytestmark = pytest.mark.skipif(
    chromium.find_chromium() is None, reason="no Chromium is installed: apt-get install chromium"
)


def test_a_file_is_transcribed_played_from_a_word_and_still_there_after_a_reload(
    server: Server, samples: dict[str, Sample]
) -> None:
    from scripts.browser import files

    sample, watch = samples["short"], chromium.Watch(server.url)
    with chromium.browser(server.url, watch=watch) as context:
        page = chromium.open_page(context)
        assert page.get_by_role("combobox", name="Speakers").count() == 0  # there is no diarizer
        files.upload(page, sample.path)
        files.wait_for(page, {"short.flac": "done"})
        assert files.text_of(page) == sample.text
        page.locator(".play:enabled").wait_for()
        page.evaluate(files.WATCH_SEEKS)
        files.click_word(page, [word["word"] for word in sample.words].index("everyone"))
        chromium.wait_until(page, "() => window.sought.length >= 2")
        begins = next(word["start"] for word in sample.words if word["word"] == "everyone")
        assert page.evaluate("window.sought[0]") == pytest.approx(begins, abs=0.2)  # the synthesizer's own time
        page.reload()
        files.wait_for(page, {"short.flac": "done"})
        assert files.text_of(page) == sample.text
    assert (watch.elsewhere, watch.errors) == ([], [])


def test_speakers_are_told_apart_named_and_exported(speaking: Server) -> None:
    from scripts.browser import speakers

    watch = chromium.Watch(speaking.url)
    with chromium.browser(speaking.url, watch=watch) as context:
        speakers.check_speakers(context, speaking.url)
    assert (watch.elsewhere, watch.errors) == ([], [])
