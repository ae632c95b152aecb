"""Turns: what a client commits is the speech in it, without its pauses, and one item."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from parakeet_stt.streaming.chunk_decoder import ChunkRules, Final, Partial
from parakeet_stt.streaming.endpointer import MS_SAMPLES
from parakeet_stt.streaming.turns import Event, SpeechStopped
from parakeet_stt.vad import WINDOW_SAMPLES
from tests.streaming.test_session import CHUNKS, ENDPOINTS, WHOLE, Speaker, Stream, pump, words_of

PAUSES = ([False] * 100, [True] * 40, [False] * 200, [True] * 60, [False] * 90)  # around speech, in windows


@pytest.mark.parametrize("chunks", [CHUNKS, WHOLE], ids=["partials", "finals"])
@pytest.mark.parametrize("is_late", [False, True], ids=["in time", "decoded after the commit"])
def test_a_turn_by_commits_is_its_speech_without_its_pauses(chunks: ChunkRules, is_late: bool) -> None:
    """All audio counted as speech, and the recognizer invented words for the silence in it."""
    session = Stream(replace(ENDPOINTS, by_commits=True), chunks)
    speaker = Speaker([speaks for part in PAUSES for speaks in part])
    events: list[Event] = []
    for at, probability in enumerate(speaker.probabilities):
        events += session.hear(speaker.samples[at * WINDOW_SAMPLES : (at + 1) * WINDOW_SAMPLES], [probability])
        events += [] if is_late else pump(session)
    assert {type(event) for event in events} <= {Partial}
    events += session.commit() + pump(session)
    ends = [event for event in events if not isinstance(event, Partial)]
    assert [type(event) for event in ends] == [SpeechStopped, Final]
    assert ends[0] == SpeechStopped(0, 0, len(speaker.samples))
    windows = {int(text) // WINDOW_SAMPLES for text in words_of(events)}
    pad = ENDPOINTS.pad_ms * MS_SAMPLES // WINDOW_SAMPLES + 2
    spoken = {near for part in (range(100, 140), range(340, 400)) for near in range(part.start - pad, part.stop + pad)}
    assert {100, 339, 340, 399} <= {near for window in windows for near in range(window - 1, window + 3)}
    assert windows <= spoken
    given_out = [word.text for event in events if isinstance(event, Partial) for word in event.stable]
    (final,) = [event for event in events if isinstance(event, Final)]
    assert given_out + [word.text for word in final.rest] == [word.text for word in final.words]
    assert bool(given_out) == (chunks.length is not None)
    assert session.commit() == []


def test_a_turn_that_is_cleared_gives_nothing_and_the_next_begins_after_it() -> None:
    session = Stream(replace(ENDPOINTS, by_commits=True), CHUNKS)
    talk = [True] * 40 + [False] * 40 + [True] * 20
    session.hear(np.arange(100 * WINDOW_SAMPLES, dtype=np.float32), [0.9 if one else 0.1 for one in talk])
    session.clear()
    assert pump(session) == []
    assert session.commit() == []
    session.hear(np.arange(100 * WINDOW_SAMPLES, 160 * WINDOW_SAMPLES, dtype=np.float32), [0.9] * 60)
    events = session.commit() + pump(session)
    (final,) = [event for event in events if isinstance(event, Final)]
    assert (final.start, final.end) == (100 * WINDOW_SAMPLES, 160 * WINDOW_SAMPLES)
    assert int(final.words[0].text) == 100 * WINDOW_SAMPLES


def test_detection_ends_a_turn_that_was_to_end_by_a_commit() -> None:
    session = Stream(replace(ENDPOINTS, by_commits=True), CHUNKS)
    talk = [True] * 40 + [False] * 40
    session.hear(np.arange(80 * WINDOW_SAMPLES, dtype=np.float32), [0.9 if one else 0.1 for one in talk])
    pump(session)
    events = session.configure(ENDPOINTS, CHUNKS)
    assert [type(event) for event in events] == [SpeechStopped, Final]
    assert session.configure(ENDPOINTS, CHUNKS) == []
