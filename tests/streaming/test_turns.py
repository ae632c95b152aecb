"""Turns: what a client commits is the speech in it, without its pauses, and one item."""

from __future__ import annotations

import random
from collections.abc import Collection, Iterator, Sequence
from dataclasses import replace
from itertools import groupby, pairwise

import numpy as np
import pytest

from parakeet_stt.protocols import ChunkResult
from parakeet_stt.streaming.chunk_decoder import ChunkRules, Final, Partial
from parakeet_stt.streaming.endpointer import MS_SAMPLES
from parakeet_stt.streaming.turns import Event, SpeechStopped
from parakeet_stt.text.transcript import SpeechCoverage, Token
from parakeet_stt.vad import WINDOW_SAMPLES
from tests.streaming.test_session import CHUNKS, ENDPOINTS, WHOLE, Speaker, Stream, pump, recognized, words_of

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
    assert final.speech
    assert final.speech.seconds == pytest.approx(60 * WINDOW)


def test_detection_ends_a_turn_that_was_to_end_by_a_commit() -> None:
    session = Stream(replace(ENDPOINTS, by_commits=True), CHUNKS)
    talk = [True] * 40 + [False] * 40
    session.hear(np.arange(80 * WINDOW_SAMPLES, dtype=np.float32), [0.9 if one else 0.1 for one in talk])
    pump(session)
    events = session.configure(ENDPOINTS, CHUNKS)
    assert [type(event) for event in events] == [SpeechStopped, Final]
    assert session.configure(ENDPOINTS, CHUNKS) == []


WINDOW = WINDOW_SAMPLES / 16_000


def finals_without(
    lost: Collection[int], windows: list[bool], *, by_commits: bool, chunks: ChunkRules = CHUNKS
) -> list[Final]:
    """All finals of what is spoken in these windows, by a recognizer that gives no words for some of them."""

    def keep(tokens: Sequence[Token]) -> tuple[Token, ...]:
        return tuple(token for token in tokens if int(token.piece[1:]) // WINDOW_SAMPLES not in lost)

    session, speaker, events = (
        Stream(replace(ENDPOINTS, by_commits=by_commits), chunks),
        Speaker(windows),
        list[Event](),
    )

    def advance(new: list[Event]) -> None:
        events.extend(new)
        while (chunk := session.next_chunk()) is not None:
            found = recognized(chunk)
            result = ChunkResult(keep(found.stable), keep(found.unstable), found.state)
            events.extend(session.receive_result(result))

    for at, probability in enumerate(speaker.probabilities):
        advance(session.hear(speaker.samples[at * WINDOW_SAMPLES : (at + 1) * WINDOW_SAMPLES], [probability]))
    advance(session.finish())
    return [event for event in events if isinstance(event, Final)]


def coverage_of(finals: Sequence[Final]) -> list[SpeechCoverage]:
    return [final.speech for final in finals if final.speech]


@pytest.mark.parametrize("by_commits", [False, True], ids=["detected", "by commits"])
def test_a_final_lists_the_speech_of_its_turn_that_has_no_words(by_commits: bool) -> None:
    windows = [False] * 30 + [True] * 150 + [False] * 40 + [True] * 60 + [False] * 40
    finals = finals_without(range(80, 130), windows, by_commits=by_commits)
    found = coverage_of(finals)
    assert [round(one.seconds / WINDOW) for one in found] == ([210] if by_commits else [150, 60])
    (span,) = [span for one in found for span in one.uncovered]
    assert [span.start, span.end] == pytest.approx([80 * WINDOW, 130 * WINDOW], abs=0.2)
    assert span.tries == 1
    assert found[0].uncovered_seconds == pytest.approx(span.end - span.start)


@pytest.mark.parametrize("seed", range(60))
def test_speech_of_any_length_is_covered_by_its_words_or_listed(seed: int) -> None:
    """Also where it is cut: the words around the cut are those of two turns."""
    pick = random.Random(seed)
    windows = [one for _ in range(8) for one in [True] * pick.randint(5, 400) + [False] * pick.randint(1, 60)]
    by_commits, chunks = pick.random() < 0.5, pick.choice([CHUNKS, WHOLE])
    whole = coverage_of(finals_without((), windows, by_commits=by_commits, chunks=chunks))
    assert [one.uncovered for one in whole] == [()] * len(whole)
    assert sum(one.seconds for one in whole) == pytest.approx(sum(windows) * WINDOW)

    first = pick.randrange(len(windows))
    lost = range(first, first + pick.randint(50, 300))
    finals = finals_without(lost, windows, by_commits=by_commits, chunks=chunks)
    listed = [span for one in coverage_of(finals) for span in one.uncovered]
    times = [(word.start, word.end) for final in finals for word in final.words]
    for one in listed:
        assert not any(start < one.end - 0.001 and end > one.start + 0.001 for start, end in times)
    ends = [final.end / 16_000 for final in finals]
    for run in runs_of([at for at in lost if at < len(windows) and windows[at]]):
        begin, end = run.start * WINDOW, run.stop * WINDOW
        for part_begin, part_end in pairwise([begin, *(one for one in ends if begin < one < end), end]):
            if part_end - part_begin >= 1.5:  # a second, and what is near words
                assert any(one.start <= (part_begin + part_end) / 2 <= one.end for one in listed), (run, listed)


def runs_of(windows: Sequence[int]) -> Iterator[range]:
    """Those that follow each other, together."""
    for _, group in groupby(enumerate(windows), lambda pair: pair[1] - pair[0]):
        run = [window for _, window in group]
        yield range(run[0], run[-1] + 1)
