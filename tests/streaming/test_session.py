"""A live session as a state machine: the same sound gives the same events however it comes, and nothing is lost."""

from __future__ import annotations

import random
from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from parakeet_stt.offline.vad_segments import WINDOW_SAMPLES
from parakeet_stt.protocols import FRAME_SAMPLES, Step, Stepped
from parakeet_stt.streaming.session import (
    MS,
    TRANSITIONS,
    Event,
    Failed,
    Final,
    Input,
    Session,
    Spoken,
    Started,
    State,
    StepRules,
    Stopped,
    TurnRules,
)
from parakeet_stt.text.transcript import Token

TURNS = TurnRules()
STEPS = StepRules()
WHOLE = StepRules(part=None)


class Speaker:
    """Sound whose samples count upwards, so that a recognizer of them can tell exactly what it was given.

    windows: for each of 32 ms, whether somebody speaks.
    """

    def __init__(self, windows: Sequence[bool]) -> None:
        self.probabilities = [0.9 if one else 0.1 for one in windows]
        self.samples = np.arange(len(windows) * WINDOW_SAMPLES, dtype=np.float32)


def frame_tokens(step: Step, start: int, end: int) -> tuple[Token, ...]:
    """A word for each frame: its first sample's number."""
    samples, seconds = step.audio.samples, FRAME_SAMPLES / 16_000
    places = range(start, min(end, len(samples)), FRAME_SAMPLES)
    return tuple(Token(0, f"▁{int(samples[at])}", at / 16_000, at / 16_000 + seconds, 0.0) for at in places if at < end)


def recognized(step: Step) -> Stepped:
    end = len(step.audio.samples) - step.after
    expected = step.memory if step.memory is not None else int(step.audio.samples[step.before])
    assert int(step.audio.samples[step.before]) == expected, "a part was left out, or came twice"
    assert step.before % FRAME_SAMPLES == 0
    part = frame_tokens(step, step.before, end)
    return Stepped(part, frame_tokens(step, end, len(step.audio.samples)), int(step.audio.samples[0]) + end)


def pump(session: Session, *, hurry: bool = False) -> list[Event]:
    events: list[Event] = []
    while (step := session.next_step(hurry=hurry)) is not None:
        events += session.stepped(recognized(step))
    return events


def run(speaker: Speaker, cuts: Iterable[int], *, steps: StepRules = STEPS, turns: TurnRules = TURNS) -> list[Event]:
    """All events of a stream that comes in frames which end at `cuts`, in windows; everything is recognized at once."""
    session, events, at = Session(turns, steps), [], 0
    for end in [*sorted(set(cuts)), len(speaker.probabilities)]:
        sound = speaker.samples[at * WINDOW_SAMPLES : end * WINDOW_SAMPLES]
        events += session.hear(sound, speaker.probabilities[at:end])
        events += pump(session)
        at = end
    events += session.finish()
    events += pump(session)
    assert session.state is State.ENDED
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
        found.setdefault((event.item, isinstance(event, Started | Stopped)), []).append(event)
    return found


def words_of(events: Iterable[Event]) -> list[str]:
    return [word.text for event in events if isinstance(event, Final) for word in event.words]


talking = st.lists(st.tuples(st.booleans(), st.integers(1, 60)), max_size=14).map(
    lambda runs: [speaks for speaks, length in runs for _ in range(length)]
)


@settings(deadline=None, max_examples=150)
@given(windows=talking, cuts=st.lists(st.integers(0, 600), max_size=30), whole=st.booleans())
def test_the_events_do_not_depend_on_how_sound_was_divided(windows: list[bool], cuts: list[int], whole: bool) -> None:
    speaker = Speaker(windows)
    steps = WHOLE if whole else STEPS
    cuts = [cut for cut in cuts if cut < len(windows)]
    turns = replace(TURNS, longest_ms=1500)
    assert heard_and_said(run(speaker, cuts, steps=steps, turns=turns)) == heard_and_said(
        run(speaker, range(len(windows)), steps=steps, turns=turns)
    )


@settings(deadline=None, max_examples=150)
@given(windows=talking, whole=st.booleans())
def test_all_that_is_spoken_is_recognized_once(windows: list[bool], whole: bool) -> None:
    speaker = Speaker(windows)
    turns = replace(TURNS, longest_ms=1500, min_speech_ms=32)
    events = run(speaker, range(len(windows)), steps=WHOLE if whole else STEPS, turns=turns)
    frames = [int(text) for text in words_of(events)]
    assert frames == sorted(set(frames))
    heard = {sample // WINDOW_SAMPLES for frame in frames for sample in range(frame, frame + FRAME_SAMPLES, 256)}
    assert {index for index, speaks in enumerate(windows) if speaks} <= heard


inputs = st.lists(
    st.one_of(
        st.tuples(st.just("hear"), st.lists(st.booleans(), min_size=1, max_size=40)),
        st.tuples(st.sampled_from(["commit", "clear", "step", "fail", "leave a step under way", "finish"]), st.none()),
    ),
    max_size=40,
)


@settings(deadline=None, max_examples=200)
@given(given=inputs, detects=st.booleans(), whole=st.booleans())
def test_any_order_of_inputs_is_legal_and_nothing_follows_a_final(
    given: list[tuple[str, list[bool] | None]], detects: bool, whole: bool
) -> None:
    session = Session(replace(TURNS, detects=detects, longest_ms=2000), WHOLE if whole else STEPS)
    over: set[int] = set()
    stopped: set[int] = set()
    cleared, count, under_way = 0, 0, False

    def take(events: list[Event]) -> None:
        for event in events:
            assert event.item not in over
            if isinstance(event, Final | Failed):
                over.add(event.item)
                assert event.item in stopped
            if isinstance(event, Stopped):
                stopped.add(event.item)

    for name, windows in given:
        ended = session.state in (State.ENDING, State.ENDED)
        if name == "hear" and windows and not ended:
            sound = np.arange(count, count + len(windows) * WINDOW_SAMPLES, dtype=np.float32)
            count += len(sound)
            take(session.hear(sound, [0.9 if one else 0.1 for one in windows]))
        elif name == "commit" and not ended:
            take(session.commit())
        elif name == "clear" and not ended:
            cleared += session.state is State.SPEAKING
            session.clear()
        elif name == "finish" and not ended:
            take(session.finish())
        elif name in ("step", "fail", "leave a step under way"):
            step = session.next_step()
            if name == "step" and step is not None:
                take(session.stepped(recognized(step)))
            elif name == "fail" and step is not None:
                take(session.failed())
            elif step is not None:
                under_way = True
        if under_way and name != "leave a step under way":
            take(session.failed())
            under_way = False
        if not session.backlog:
            assert session.held <= count
    if under_way:
        take(session.failed())
    if session.state not in (State.ENDING, State.ENDED):
        take(session.finish())
    take(pump(session))
    assert session.state is State.ENDED
    assert over == stopped


def test_states_are_left_only_as_the_table_says() -> None:
    session = Session(TURNS, STEPS)
    session.finish()
    assert session.state is State.ENDED
    assert (State.ENDED, Input.SPEECH) not in TRANSITIONS
    with pytest.raises(KeyError):
        session.clear()


@pytest.mark.parametrize("steps", [STEPS, WHOLE], ids=["partials", "finals"])
def test_hours_of_speech_are_held_no_longer_than_they_are_needed(steps: StepRules) -> None:
    session = Session(TURNS, steps)
    most, longest, count = 0, 0, 0
    for second in range(600):
        sound = np.arange(count, count + 32 * WINDOW_SAMPLES, dtype=np.float32) % 2**23
        count += len(sound)
        session.hear(sound, [0.9] * 32)
        while (step := session.next_step()) is not None:
            longest = max(longest, len(step.audio.samples))
            session.stepped(Stepped((), (), second))
        most = max(most, session.held)
    assert most <= (TURNS.longest_ms + 1100) * MS + steps.left * FRAME_SAMPLES
    part = steps.part * FRAME_SAMPLES if steps.part else TURNS.longest_ms * MS
    assert longest <= part + (steps.left + steps.right) * FRAME_SAMPLES


def test_an_utterance_that_lasts_too_long_is_cut_in_a_short_pause_if_there_is_one() -> None:
    talk = [True] * 200 + [False] * 3 + [True] * 200
    events = run(Speaker(talk), range(len(talk)))
    stops = [event for event in events if isinstance(event, Stopped)]
    assert abs(stops[0].end - 201 * WINDOW_SAMPLES) <= FRAME_SAMPLES
    assert stops[1].start == stops[0].end


def test_a_word_that_goes_on_after_a_cut_is_not_divided() -> None:
    session = Session(replace(TURNS, longest_ms=1000), STEPS)

    def found(step: Step) -> Stepped:
        """One long word of syllables of a frame each, from 0.8 s on, that ends at 1.2 s; then another."""

        def tokens(start: int, end: int) -> tuple[Token, ...]:
            places = range(start, end, FRAME_SAMPLES)
            frames = [int(step.audio.samples[at]) // FRAME_SAMPLES for at in places]
            return tuple(
                Token(0, {10: "▁be", 15: "▁then"}.get(frame, "-"), at / 16_000, at / 16_000 + 0.08, 0.0)
                for at, frame in zip(places, frames, strict=True)
                if frame >= 10
            )

        end = len(step.audio.samples) - step.after
        return Stepped(tokens(step.before, end), tokens(end, len(step.audio.samples)), 1)

    sound = np.arange(60 * WINDOW_SAMPLES, dtype=np.float32)
    events: list[Event] = []
    for index in range(60):
        events += session.hear(sound[index * WINDOW_SAMPLES : (index + 1) * WINDOW_SAMPLES], [0.9])
        while (step := session.next_step()) is not None:
            events += session.stepped(found(step))
    events += session.finish()
    while (step := session.next_step()) is not None:
        events += session.stepped(found(step))
    words = words_of(events)
    assert words[0] == "be----"
    assert words[1].startswith("then-")


def test_words_are_told_once_and_make_up_the_final() -> None:
    talk = [False] * 5 + [True] * 100 + [False] * 20 + [True] * 40
    events = run(Speaker(talk), range(len(talk)))
    for own in of_items(events).values():
        told = [word.text for event in own if isinstance(event, Spoken) for word in event.stable]
        (final,) = [event for event in own if isinstance(event, Final)]
        assert told + [word.text for word in final.rest] == [word.text for word in final.words]
        assert isinstance(own[0], Started)


def test_without_detection_only_commits_end_an_utterance() -> None:
    session = Session(replace(TURNS, detects=False), STEPS)
    sound = np.arange(100 * WINDOW_SAMPLES, dtype=np.float32)
    assert session.hear(sound, [0.1] * 100) == []
    events = session.commit() + pump(session)
    assert [type(event) for event in events if not isinstance(event, Spoken)] == [Stopped, Final]
    assert [int(text) for text in words_of(events)] == list(range(0, len(sound), FRAME_SAMPLES))
    assert session.commit() == []


@pytest.mark.parametrize(
    "after", [replace(TURNS, detects=False), replace(TURNS, pad_ms=2000)], ids=["no detection", "longer padding"]
)
def test_rules_that_change_ask_for_no_sound_that_is_gone(after: TurnRules) -> None:
    """An utterance began where nothing was held any more: its step was empty, and the schedule divided by its length"""
    session = Session(TURNS, STEPS)
    for at in range(940):
        window = np.arange(at * WINDOW_SAMPLES, (at + 1) * WINDOW_SAMPLES, dtype=np.float32)
        session.hear(window, [0.1])
    session.turns = after
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
        events = run(Speaker(windows), range(len(windows)), turns=replace(TURNS, longest_ms=2000, pad_ms=0))
        assert all(event.start <= event.end for event in events if isinstance(event, Stopped | Final))


def test_what_follows_a_cleared_utterance_goes_on_with_nobodys_memory() -> None:
    session = Session(replace(TURNS, longest_ms=1000), STEPS)
    session.hear(np.arange(45 * WINDOW_SAMPLES, dtype=np.float32), [0.9] * 45)
    session.clear()
    late = np.arange(45 * WINDOW_SAMPLES, 100 * WINDOW_SAMPLES, dtype=np.float32)
    session.hear(late, [0.1] * 15 + [0.9] * 40)
    session.finish()
    first_of_the_later = None
    while (step := session.next_step()) is not None:
        if first_of_the_later is None and step.audio.samples[step.before] >= 45 * WINDOW_SAMPLES:
            first_of_the_later = step
        session.stepped(recognized(step))
    assert first_of_the_later is not None
    assert first_of_the_later.memory is None


def test_who_is_behind_takes_more_at_once() -> None:
    session = Session(TURNS, STEPS)
    sound = np.arange(200 * WINDOW_SAMPLES, dtype=np.float32)
    session.hear(sound, [0.9] * 200)
    step = session.next_step(hurry=True)
    assert step is not None
    assert STEPS.part is not None
    assert len(sound) - len(step.audio.samples) < STEPS.part * FRAME_SAMPLES
