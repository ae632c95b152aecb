"""A live session as a state machine: the same sound gives the same events however it comes, and nothing is lost."""

from __future__ import annotations

import gc
import random
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import cast

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parakeet_stt.audio import Audio, AudioBuffer, Samples
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult
from parakeet_stt.streaming import chunk_decoder, endpointer
from parakeet_stt.streaming.chunk_decoder import ChunkInput, ChunkRules, ChunkState, Failed, Final, Partial
from parakeet_stt.streaming.endpointer import MS_SAMPLES, EndpointInput, EndpointRules, EndpointState
from parakeet_stt.streaming.session import JOINT_STATES, Session
from parakeet_stt.streaming.turns import Event, SpeechStarted, SpeechStopped
from parakeet_stt.text.transcript import Token
from parakeet_stt.vad import WINDOW_SAMPLES

ENDPOINTS = EndpointRules()
CHUNKS = ChunkRules()
WHOLE = ChunkRules(length=None)


class Speaker:
    """Sound whose samples count upwards, so that a recognizer of them can tell exactly what it was given.

    windows: for each of 32 ms, whether somebody speaks.
    """

    def __init__(self, windows: Sequence[bool]) -> None:
        self.probabilities = [0.9 if one else 0.1 for one in windows]
        self.samples = np.arange(len(windows) * WINDOW_SAMPLES, dtype=np.float32)


class Stream(Session):
    """A session with its audio, to which sound is appended before the session is told of it, as in a front."""

    def __init__(self, endpoints: EndpointRules, chunks: ChunkRules) -> None:
        self.audio = AudioBuffer()
        super().__init__(endpoints, chunks, self.audio)

    def hear(self, sound: Samples, probabilities: Sequence[float]) -> list[Event]:
        self.audio.append(sound)
        return self.receive_audio(len(sound), probabilities)


def samples_of(chunk: Chunk) -> Samples:
    return cast(Audio, chunk.audio).samples


def frame_tokens(chunk: Chunk, start: int, end: int) -> tuple[Token, ...]:
    """A word for each frame: its first sample's number."""
    samples, seconds = samples_of(chunk), FRAME_SAMPLES / 16_000
    places = range(start, min(end, len(samples)), FRAME_SAMPLES)
    return tuple(Token(0, f"▁{int(samples[at])}", at / 16_000, at / 16_000 + seconds, 0.0) for at in places if at < end)


def recognized(chunk: Chunk) -> ChunkResult:
    end = chunk.audio.length - chunk.right_context
    expected = chunk.state if chunk.state is not None else int(samples_of(chunk)[chunk.left_context])
    assert int(samples_of(chunk)[chunk.left_context]) == expected, "a part was left out, or came twice"
    assert chunk.left_context % FRAME_SAMPLES == 0
    part = frame_tokens(chunk, chunk.left_context, end)
    return ChunkResult(part, frame_tokens(chunk, end, chunk.audio.length), int(samples_of(chunk)[0]) + end)


def pump(session: Session, *, hurry: bool = False) -> list[Event]:
    events: list[Event] = []
    while (chunk := session.next_chunk(hurry=hurry)) is not None:
        events += session.receive_result(recognized(chunk))
    return events


def run(
    speaker: Speaker, cuts: Iterable[int], *, chunks: ChunkRules = CHUNKS, endpoints: EndpointRules = ENDPOINTS
) -> list[Event]:
    """All events of a stream that comes in frames which end at `cuts`, in windows; everything is recognized at once."""
    session, events, at = Stream(endpoints, chunks), [], 0
    for end in [*sorted(set(cuts)), len(speaker.probabilities)]:
        sound = speaker.samples[at * WINDOW_SAMPLES : end * WINDOW_SAMPLES]
        events += session.hear(sound, speaker.probabilities[at:end])
        events += pump(session)
        at = end
    events += session.finish()
    events += pump(session)
    assert session.is_over
    return events


def of_items(events: Iterable[Event]) -> dict[int, list[Event]]:
    found: dict[int, list[Event]] = {}
    for event in events:
        found.setdefault(event.item, []).append(event)
    return found


def heard_and_said(events: Iterable[Event]) -> dict[tuple[int, bool], list[Event]]:
    """Of each utterance, where it begins and ends, and what is in it: the two come at times of their own."""
    found: dict[tuple[int, bool], list[Event]] = {}
    for event in events:
        found.setdefault((event.item, isinstance(event, SpeechStarted | SpeechStopped)), []).append(event)
    return found


def words_of(events: Iterable[Event]) -> list[str]:
    return [word.text for event in events if isinstance(event, Final) for word in event.words]


talking = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=14).map(
    lambda runs: [speaks for speaks, length in runs for _ in range(length)]
)


@settings(deadline=None, max_examples=150)
@given(windows=talking, cuts=st.lists(st.integers(0, 600), max_size=30), whole=st.booleans(), by_commits=st.booleans())
def test_the_events_do_not_depend_on_how_sound_was_divided(
    windows: list[bool], cuts: list[int], whole: bool, by_commits: bool
) -> None:
    speaker = Speaker(windows)
    chunks = WHOLE if whole else CHUNKS
    cuts = [cut for cut in cuts if cut < len(windows)]
    endpoints = replace(ENDPOINTS, longest_ms=1500, by_commits=by_commits)
    assert heard_and_said(run(speaker, cuts, chunks=chunks, endpoints=endpoints)) == heard_and_said(
        run(speaker, range(len(windows)), chunks=chunks, endpoints=endpoints)
    )


@settings(deadline=None, max_examples=150)
@given(windows=talking, whole=st.booleans(), by_commits=st.booleans())
def test_all_that_is_spoken_is_recognized_once(windows: list[bool], whole: bool, by_commits: bool) -> None:
    speaker = Speaker(windows)
    endpoints = replace(ENDPOINTS, longest_ms=1500, min_speech_ms=32, by_commits=by_commits)
    events = run(speaker, range(len(windows)), chunks=WHOLE if whole else CHUNKS, endpoints=endpoints)
    frames = [int(text) for text in words_of(events)]
    assert frames == sorted(set(frames))
    decoded = {sample // WINDOW_SAMPLES for frame in frames for sample in range(frame, frame + FRAME_SAMPLES, 256)}
    assert {index for index, speaks in enumerate(windows) if speaks} <= decoded


inputs = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), st.lists(st.booleans(), min_size=1, max_size=40)),
        st.tuples(st.sampled_from(["commit", "clear", "step", "fail", "leave a step under way", "finish"]), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(given=inputs, by_commits=st.booleans(), whole=st.booleans())
def test_any_order_of_inputs_is_legal_and_nothing_follows_a_final(
    given: list[tuple[str, list[bool] | None]], by_commits: bool, whole: bool
) -> None:
    session = Stream(replace(ENDPOINTS, by_commits=by_commits, longest_ms=2000), WHOLE if whole else CHUNKS)
    over: set[int] = set()
    stopped: set[int] = set()
    count, under_way = 0, False

    def take(events: list[Event]) -> None:
        for event in events:
            assert event.item not in over
            if isinstance(event, Final | Failed):
                over.add(event.item)
                assert event.item in stopped
            if isinstance(event, SpeechStopped):
                stopped.add(event.item)

    for name, windows in given:
        ended = session.state[0] is EndpointState.CLOSED
        if name == "hear" and windows and not ended:
            sound = np.arange(count, count + len(windows) * WINDOW_SAMPLES, dtype=np.float32)
            count += len(sound)
            take(session.hear(sound, [0.9 if one else 0.1 for one in windows]))
        elif name == "commit" and not ended:
            take(session.commit())
        elif name == "clear" and not ended:
            session.clear()
        elif name == "finish" and not ended:
            take(session.finish())
        elif name in ("step", "fail", "leave a step under way"):
            chunk = session.next_chunk()
            if name == "step" and chunk is not None:
                take(session.receive_result(recognized(chunk)))
            elif name == "fail" and chunk is not None:
                take(session.receive_failure())
            elif chunk is not None:
                under_way = True
        if under_way and name != "leave a step under way":
            take(session.receive_failure())
            under_way = False
        assert session.state in JOINT_STATES
        if name == "hear" and session.state[1] is ChunkState.EMPTY:
            assert (
                session.audio.stored <= 42 * WINDOW_SAMPLES + (ENDPOINTS.pad_ms + ENDPOINTS.min_speech_ms) * MS_SAMPLES
            )
    if under_way:
        take(session.receive_failure())
    if session.state[0] is not EndpointState.CLOSED:
        take(session.finish())
    take(pump(session))
    assert session.is_over
    assert over == stopped


def test_states_are_left_only_as_the_tables_say() -> None:
    session = Stream(ENDPOINTS, CHUNKS)
    assert session.state == (EndpointState.SILENCE, ChunkState.EMPTY)
    sound = np.arange(40 * WINDOW_SAMPLES, dtype=np.float32)
    session.hear(sound, [0.9] * 40)
    assert session.state == (EndpointState.SPEECH, ChunkState.PENDING)
    chunk = session.next_chunk()
    assert chunk is not None
    assert session.state == (EndpointState.SPEECH, ChunkState.DECODING)
    assert session.next_chunk() is None  # one chunk at a time
    session.commit()
    assert session.state == (EndpointState.SILENCE, ChunkState.DECODING)
    session.receive_result(recognized(chunk))
    session.finish()
    assert session.state == (EndpointState.CLOSED, ChunkState.PENDING)
    pump(session)
    assert session.is_over
    for illegal in (session.clear, session.finish):
        with pytest.raises(KeyError):
            illegal()
    assert not any(state is EndpointState.CLOSED for state, _ in endpointer.TRANSITIONS)
    assert (ChunkState.EMPTY, ChunkInput.SENT) not in chunk_decoder.TRANSITIONS
    assert (EndpointState.SILENCE, EndpointInput.CUT) not in endpointer.TRANSITIONS


def test_an_answer_about_a_cleared_utterance_is_ignored_and_nothing_is_decoded_beside_it() -> None:
    session = Stream(ENDPOINTS, CHUNKS)
    session.hear(np.arange(40 * WINDOW_SAMPLES, dtype=np.float32), [0.9] * 40)
    chunk = session.next_chunk()
    assert chunk is not None
    session.clear()
    late = np.arange(40 * WINDOW_SAMPLES, 80 * WINDOW_SAMPLES, dtype=np.float32)
    session.hear(late, [0.9] * 40)
    assert session.next_chunk() is None
    assert session.receive_result(recognized(chunk)) == []
    events = [*session.finish(), *pump(session)]
    assert min(int(text) for text in words_of(events)) >= 40 * WINDOW_SAMPLES


@pytest.mark.parametrize("chunks", [CHUNKS, WHOLE], ids=["partials", "finals"])
def test_hours_of_speech_are_held_no_longer_than_they_are_needed(chunks: ChunkRules) -> None:
    session = Stream(ENDPOINTS, chunks)
    most, longest, count = 0, 0, 0
    for second in range(600):
        sound = np.arange(count, count + 32 * WINDOW_SAMPLES, dtype=np.float32) % 2**23
        count += len(sound)
        session.hear(sound, [0.9] * 32)
        while (chunk := session.next_chunk()) is not None:
            longest = max(longest, chunk.audio.length)
            session.receive_result(ChunkResult((), (), second))
        most = max(most, session.audio.stored)
    assert most <= (ENDPOINTS.longest_ms + 1100) * MS_SAMPLES + chunks.left_context * FRAME_SAMPLES
    part = chunks.length * FRAME_SAMPLES if chunks.length else ENDPOINTS.longest_ms * MS_SAMPLES
    assert longest <= part + (chunks.left_context + chunks.right_context) * FRAME_SAMPLES


def test_an_utterance_that_lasts_too_long_is_cut_in_a_short_pause_if_there_is_one() -> None:
    talk = [True] * 200 + [False] * 3 + [True] * 200
    events = run(Speaker(talk), range(len(talk)))
    stops = [event for event in events if isinstance(event, SpeechStopped)]
    assert abs(stops[0].end - 201 * WINDOW_SAMPLES) <= FRAME_SAMPLES
    assert stops[1].start == stops[0].end


def test_a_word_that_goes_on_after_a_cut_is_not_divided() -> None:
    session = Stream(replace(ENDPOINTS, longest_ms=1000), CHUNKS)

    def found(chunk: Chunk) -> ChunkResult:
        """One long word of syllables of a frame each, from 0.8 s on, that ends at 1.2 s; then another."""

        def tokens(start: int, end: int) -> tuple[Token, ...]:
            places = range(start, end, FRAME_SAMPLES)
            frames = [int(samples_of(chunk)[at]) // FRAME_SAMPLES for at in places]
            return tuple(
                Token(0, {10: "▁be", 15: "▁then"}.get(frame, "-"), at / 16_000, at / 16_000 + 0.08, 0.0)
                for at, frame in zip(places, frames, strict=True)
                if frame >= 10
            )

        end = chunk.audio.length - chunk.right_context
        return ChunkResult(tokens(chunk.left_context, end), tokens(end, chunk.audio.length), 1)

    sound = np.arange(60 * WINDOW_SAMPLES, dtype=np.float32)
    events: list[Event] = []
    for index in range(60):
        events += session.hear(sound[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES], [0.9])
        while (chunk := session.next_chunk()) is not None:
            events += session.receive_result(found(chunk))
    events += session.finish()
    while (chunk := session.next_chunk()) is not None:
        events += session.receive_result(found(chunk))
    words = words_of(events)
    assert words[0] == "be----"
    assert words[1].startswith("then-")


def test_words_are_told_once_and_make_up_the_final() -> None:
    talk = [False] * 5 + [True] * 100 + [False] * 20 + [True] * 40
    events = run(Speaker(talk), range(len(talk)))
    for own in of_items(events).values():
        given_out = [word.text for event in own if isinstance(event, Partial) for word in event.stable]
        (final,) = [event for event in own if isinstance(event, Final)]
        assert given_out + [word.text for word in final.rest] == [word.text for word in final.words]
        assert isinstance(own[0], SpeechStarted)


@pytest.mark.parametrize(
    "after",
    [replace(ENDPOINTS, by_commits=True), replace(ENDPOINTS, pad_ms=2000)],
    ids=["by commits", "longer padding"],
)
def test_rules_that_change_ask_for_no_sound_that_is_gone(after: EndpointRules) -> None:
    """An utterance began in audio that was discarded: its chunk was empty, and the scheduler divided by its length."""
    session = Stream(ENDPOINTS, CHUNKS)
    for at in range(940):
        window = np.arange(at * WINDOW_SAMPLES, (at + 1) * WINDOW_SAMPLES, dtype=np.float32)
        session.hear(window, [0.1])
    session.configure(after, CHUNKS)
    events: list[Event] = []
    for at in range(940, 1000):
        window = np.arange(at * WINDOW_SAMPLES, (at + 1) * WINDOW_SAMPLES, dtype=np.float32)
        events += session.hear(window, [0.9])
        events += pump(session)
    events += session.finish() + pump(session)
    frames = [int(text) for text in words_of(events)]
    assert frames == list(range(frames[0], 1000 * WINDOW_SAMPLES, FRAME_SAMPLES))
    assert frames[0] <= 940 * WINDOW_SAMPLES


def test_an_utterance_never_ends_before_it_begins() -> None:
    """After a cut in a pause the pause was counted from before the cut."""
    pick = random.Random(4)
    for _ in range(60):
        windows = [speaks for speaks in (True, False) * 20 for _ in range(pick.randrange(1, 9 if speaks else 7))]
        events = run(Speaker(windows), range(len(windows)), endpoints=replace(ENDPOINTS, longest_ms=2000, pad_ms=0))
        assert all(event.start <= event.end for event in events if isinstance(event, SpeechStopped | Final))


def test_what_follows_a_cleared_utterance_goes_on_with_nobodys_memory() -> None:
    session = Stream(replace(ENDPOINTS, longest_ms=1000), CHUNKS)
    session.hear(np.arange(45 * WINDOW_SAMPLES, dtype=np.float32), [0.9] * 45)
    session.clear()
    late = np.arange(45 * WINDOW_SAMPLES, 100 * WINDOW_SAMPLES, dtype=np.float32)
    session.hear(late, [0.1] * 15 + [0.9] * 40)
    session.finish()
    first_of_the_later = None
    while chunk := session.next_chunk():
        if first_of_the_later is None and samples_of(chunk)[chunk.left_context] >= 45 * WINDOW_SAMPLES:
            first_of_the_later = chunk
        session.receive_result(recognized(chunk))
    assert first_of_the_later
    assert first_of_the_later.state is None


def test_who_is_behind_takes_more_at_once() -> None:
    session = Stream(ENDPOINTS, CHUNKS)
    sound = np.arange(200 * WINDOW_SAMPLES, dtype=np.float32)
    session.hear(sound, [0.9] * 200)
    chunk = session.next_chunk(hurry=True)
    assert chunk
    assert CHUNKS.length
    assert len(sound) - chunk.audio.length < CHUNKS.length * FRAME_SAMPLES


def test_a_chunk_of_a_long_manual_turn_costs_no_more_than_one_of_a_short_turn() -> None:
    """All words of the turn were built again for each chunk: after ten minutes each took a hundred times as long."""
    session = Stream(replace(ENDPOINTS, by_commits=True), CHUNKS)
    assert CHUNKS.length
    samples = CHUNKS.length * FRAME_SAMPLES

    def seconds(chunks: range) -> float:
        began = time.thread_time()
        for number in chunks:
            sound = np.arange(number * samples, (number + 1) * samples, dtype=np.float32) % 2**23
            session.hear(sound, [0.9] * 25)
            while (chunk := session.next_chunk()) is not None:
                end = chunk.audio.length - chunk.right_context
                session.receive_result(ChunkResult(frame_tokens(chunk, chunk.left_context, end), (), number))
        return time.thread_time() - began

    gc.disable()  # one collection in a process with NeMo takes over a second
    try:
        first, _ = seconds(range(100)), seconds(range(100, 1000))
        last = seconds(range(1000, 1100))
    finally:
        gc.enable()
    assert last < 4 * first + 0.05
