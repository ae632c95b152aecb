"""Who says which word, from given probabilities: no model is needed."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.text.alignment import split_segments
from parakeet_stt.text.speakers import Labels, SpeakerFrames, Turns, assign_speakers
from parakeet_stt.text.transcript import Said, Segment, Token, Word, WordList

FRAME = 0.08


def word(text: str, first: int, last: int) -> Word:
    """A word over the frames [first, last)."""
    start, end = first * FRAME, last * FRAME
    return Word(text, start, end, (Token(0, f"▁{text}", start, end, -0.1),))


def frames(*rows: tuple[int, dict[int, float]], speakers: int = 4) -> SpeakerFrames:
    """Frames in runs: how many, and the probability of each speaker who speaks."""
    found = SpeakerFrames(speakers)
    for count, active in rows:
        row = np.zeros((count, speakers), np.float32)
        for speaker, probability in active.items():
            row[:, speaker] = probability
        found.append(row)
    return found


def whole(words: list[Word], found: SpeakerFrames, names: dict[int, str] | None = None) -> list[tuple[str | None, str]]:
    turns = Turns(WordList(words), found, names or {})
    turns.advance(is_over=True)
    return [(segment.speaker, segment.text) for segment in turns.segments()]


def test_a_word_has_the_likeliest_speaker_of_its_frames() -> None:
    found = frames((4, {0: 0.9}), (2, {1: 0.8}), (2, {1: 0.8, 0: 0.6}))
    said = assign_speakers([word("one", 0, 4), word("two", 4, 8)], found, None)
    assert said == [Said(0), Said(1)]  # half of a word is not enough for a second speaker


def test_a_segment_ends_where_the_speaker_changes() -> None:
    words = [word("yes", 0, 2), word("no", 2, 4), word("perhaps.", 4, 6), word("Well.", 7, 9)]
    found = frames((2, {2: 0.9}), (5, {0: 0.9}), (3, {2: 0.9}))
    assert whole(words, found) == [("A", "yes"), ("B", "no perhaps."), ("A", "Well.")]


def test_a_tie_and_silence_go_to_the_nearest_word_of_the_sentence() -> None:
    tie = {0: 0.7, 1: 0.69}
    found = frames((2, {1: 0.9}), (2, tie), (2, {}), (6, {0: 0.9}), (2, tie))
    words = [word("one", 0, 2), word("two", 2, 4), word("three", 4, 6), word("four.", 6, 12), word("Five.", 12, 14)]
    assert [said.speaker for said in assign_speakers(words[:4], found, None)] == [1, 1, 0, 0]
    assert [said.speaker for said in assign_speakers(words[4:], found, 1)] == [1]  # alone: whoever spoke before
    assert [said.speaker for said in assign_speakers(words[4:], found, None)] == [0]  # first of all: the likeliest


def test_a_sentence_does_not_take_its_speaker_from_the_next() -> None:
    found = frames((2, {0: 0.9}), (2, {}), (4, {1: 0.9}))
    words = [word("one", 0, 2), word("two.", 2, 4), word("Three.", 4, 8)]
    assert whole(words, found) == [("A", "one two."), ("B", "Three.")]


def test_whoever_speaks_at_the_same_time_is_told() -> None:
    found = frames((4, {0: 0.95, 1: 0.7}), (4, {0: 0.9}))
    turns = Turns(WordList([word("one", 0, 4), word("two.", 4, 8)]), found, {0: "Ann"})
    turns.advance(is_over=True)
    assert [turns.speakers.of(index) for index in range(2)] == ["Ann", "Ann"]
    assert [turns.speakers.second_of(index) for index in range(2)] == ["A", None]


def test_words_beyond_the_known_frames_keep_the_speaker() -> None:
    assert whole([word("one", 0, 2), word("two.", 2, 9)], frames((2, {3: 0.9}))) == [("A", "one two.")]
    assert whole([word("one.", 0, 2)], SpeakerFrames(4)) == [("A", "one.")]


def test_a_word_without_length_has_a_speaker() -> None:
    assert whole([word("one", 3, 3), word("two.", 3, 5)], frames((3, {0: 0.9}), (3, {1: 0.9}))) == [("A", "one two.")]


def test_letters_follow_the_order_of_speaking_and_leave_out_names() -> None:
    labels = Labels({2: "B", 0: "Ann"})
    assert [labels(number) for number in (3, 0, 1, 2, 3)] == ["A", "Ann", "C", "B", "A"]


def test_a_label_that_was_given_stays() -> None:
    names = {0: "Ann", 1: "Bob"}
    labels = Labels(names)
    assert labels(0) == "Ann"
    names.clear()
    assert [labels(number) for number in (0, 1)] == ["Ann", "A"]


def test_a_segment_is_final_once_its_sentence_and_its_frames_are_known() -> None:
    words, found = WordList(), SpeakerFrames(4)
    turns = Turns(words, found, {})
    words.extend([word("one", 0, 2), word("two.", 2, 4)])
    turns.advance()
    assert turns.take() == ()
    found.append(np.full((4, 4), [0.9, 0, 0, 0], np.float32))
    turns.advance()
    assert turns.take() == ()  # a small letter after it would go on
    words.extend([word("Three", 5, 6)])
    turns.advance()
    assert [segment.text for segment in turns.take()] == ["one two."]
    found.append(np.full((60, 4), [0, 0.9, 0, 0], np.float32))
    turns.advance()
    assert turns.take() == ()
    words.extend([word("four", 40, 41)])  # after a long silence
    turns.advance()
    assert [segment.text for segment in turns.take()] == ["Three"]
    turns.advance(is_over=True)
    assert [(segment.text, segment.speaker) for segment in turns.take()] == [("four", "B")]


@given(
    st.lists(st.tuples(st.integers(0, 3), st.integers(0, 6), st.sampled_from(["a", "b.", "c"])), max_size=30),
    st.lists(st.lists(st.floats(0, 1, width=32), min_size=2, max_size=2), max_size=100),
    st.integers(1, 7),
)
def test_however_it_arrives_the_turns_are_the_same_and_hold_every_word_once(
    shape: list[tuple[int, int, str]], probabilities: list[list[float]], step: int
) -> None:
    all_words, at = [], 0
    for gap, length, text in shape:
        all_words.append(word(text, at + gap, at + gap + length))
        at += gap + length
    given_frames = np.array(probabilities, np.float32).reshape(-1, 2)
    at_once = SpeakerFrames(2)
    at_once.append(given_frames)
    expected = whole(all_words, at_once)
    words, found = WordList(), SpeakerFrames(2)
    turns = Turns(words, found, {})
    taken: list[Segment] = []
    for start in range(0, max(len(all_words), len(given_frames)), step):
        words.extend(all_words[start : start + step])
        found.append(given_frames[start : start + step])
        turns.advance()
        taken += turns.take()
    turns.advance(is_over=True)
    taken += turns.take()
    assert [(segment.speaker, segment.text) for segment in taken] == expected
    assert [one for segment in taken for one in segment.words] == all_words
    starts = {segment.words[0].start for segment in taken}
    assert {segment.words[0].start for segment in split_segments(all_words)} <= starts
    assert all(one.words for one in taken)


def test_a_probability_is_kept_to_a_255th() -> None:
    found = SpeakerFrames(2)
    found.append(np.array([[0.3, 1.0], [0.5, 0.0]], np.float32))
    assert found.mean(0, 2 * FRAME) == pytest.approx([0.4, 0.5], abs=1 / 255)
    assert len(found) == 2
