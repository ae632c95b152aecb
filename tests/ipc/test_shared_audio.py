"""Audio in shared memory: written here, read there, and freed as it is discarded."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from parakeet_stt.audio import SAMPLE_RATE, Audio, AudioBuffer, Clip, Samples, Span
from parakeet_stt.ipc.shared_audio import (
    FREED_SAMPLES,
    SharedAudio,
    SharedClip,
    create_memory_file,
    read_into,
    read_samples,
    write_samples,
)

ROOT = Path(__file__).parents[2]
BLOCK_BYTES = 512  # of st_blocks
Store = SharedAudio | AudioBuffer
STORES = [SharedAudio, AudioBuffer]


def counting(count: int, first: int = 0) -> Samples:
    """Samples of which each is its own place."""
    return np.arange(first, first + count, dtype=np.float32)


def samples_of(clip: Clip) -> list[float]:
    audio = clip.load() if isinstance(clip, SharedClip) else clip
    assert isinstance(audio, Audio)
    assert clip.length == audio.length
    assert clip.duration == audio.length / SAMPLE_RATE
    samples: list[float] = audio.samples.tolist()
    return samples


def stored_bytes(audio: SharedAudio) -> int:
    return os.fstat(audio.descriptor).st_blocks * BLOCK_BYTES


@pytest.fixture
def audio() -> Iterator[SharedAudio]:
    made = SharedAudio()
    yield made
    made.close()


@pytest.mark.parametrize("store", STORES)
def test_a_clip_has_the_samples_of_its_place(store: type[Store]) -> None:
    audio = store()
    for first in range(0, 100, 10):
        audio.append(counting(10, first))
    assert audio.length == 100
    assert samples_of(audio.clip(0, 100)) == list(range(100))
    assert samples_of(audio.clip(7, 32)) == list(range(7, 32))
    assert samples_of(audio.clip(7, 7)) == []
    assert samples_of(audio.clip(95, 1000)) == list(range(95, 100))


@pytest.mark.parametrize("store", STORES)
def test_a_slice_is_the_part_inside_its_span(store: type[Store]) -> None:
    audio = store()
    audio.append(counting(100))
    clip = audio.clip(20, 50)
    assert samples_of(clip.slice(Span(0, 30))) == list(range(20, 50))
    assert samples_of(clip.slice(Span(5, 10))) == list(range(25, 30))
    assert samples_of(clip.slice(Span(5, 10)).slice(Span(1, 2))) == [26]
    assert samples_of(clip.slice(Span(25, 99))) == list(range(45, 50))
    assert samples_of(clip.slice(Span(30, 99))) == []
    assert samples_of(clip.slice(Span(40, 99))) == []


@pytest.mark.parametrize("store", STORES)
@given(
    parts=st.lists(st.integers(0, 50), max_size=8),
    discarded=st.lists(st.integers(0, 400), max_size=3),
    start=st.integers(0, 400),
    length=st.integers(0, 400),
)
def test_both_stores_give_what_is_still_there_and_keep_what_is_needed(
    store: type[Store], parts: list[int], discarded: list[int], start: int, length: int
) -> None:
    audio = store()
    for part in parts:
        audio.append(counting(part, audio.length))
    for end in discarded:
        audio.discard_before(end)
    total = sum(parts)
    assert audio.length == total
    assert audio.first <= min(total, max(discarded, default=0))
    expected = range(total)[max(start, audio.first) : start + length] if start + length > audio.first else range(0)
    assert samples_of(audio.clip(start, start + length)) == list(expected)
    audio.append(counting(5, total))
    assert samples_of(audio.clip(total, total + 5)) == list(range(total, total + 5))
    if isinstance(audio, SharedAudio):
        audio.close()


def test_another_process_reads_it_with_nothing_but_the_descriptor(audio: SharedAudio) -> None:
    audio.append(counting(1000))
    program = (
        "import sys; from parakeet_stt.ipc.shared_audio import read_samples, write_samples;"
        "number = int(sys.argv[1]); found = read_samples(number, 100, 50);"
        "print(found.tolist() == list(range(100, 150))); write_samples(number, 1000, found)"
    )
    done = subprocess.run(
        [sys.executable, "-c", program, str(audio.descriptor)],
        pass_fds=[audio.descriptor], cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.strip() == "True"
    assert samples_of(audio.clip(1000, 1050)) == []  # nobody has said that there is more
    audio.extend(50)
    assert samples_of(audio.clip(1000, 1050)) == list(range(100, 150))


def test_its_memory_is_given_back_as_it_is_discarded(audio: SharedAudio) -> None:
    minute = 60 * SAMPLE_RATE
    audio.append(np.ones(3 * minute, np.float32))
    whole = stored_bytes(audio)
    assert whole >= 3 * minute * 4
    clip = audio.clip(0, 3 * minute)
    audio.discard_before(2 * minute)
    assert stored_bytes(audio) <= whole - 2 * minute * 4 + 8192  # but for pages at both ends
    assert audio.stored == minute
    assert samples_of(audio.clip(0, 3 * minute))[0] == 1
    assert audio.clip(0, 3 * minute).length == minute
    late = clip.load().samples
    assert not late[: 2 * minute].any()
    assert late[2 * minute :].all()
    audio.discard_before(10 * minute)
    assert stored_bytes(audio) <= 8192
    assert audio.first == audio.length == 3 * minute


def test_an_endless_stream_takes_no_more_memory_than_what_is_still_needed(audio: SharedAudio) -> None:
    second = np.ones(SAMPLE_RATE, np.float32)
    most = 0
    for _ in range(200):
        audio.append(second)
        audio.discard_before(audio.length - 5 * SAMPLE_RATE)
        most = max(most, stored_bytes(audio))
    assert most <= (5 * SAMPLE_RATE + FREED_SAMPLES + SAMPLE_RATE) * 4 + 8192
    assert audio.stored <= 5 * SAMPLE_RATE + FREED_SAMPLES


def test_little_that_is_discarded_stays_until_there_is_more(audio: SharedAudio) -> None:
    """Freeing is a system call, and a front discards after every utterance."""
    audio.append(np.ones(2 * FREED_SAMPLES, np.float32))
    audio.discard_before(FREED_SAMPLES - 1)
    assert audio.stored == 2 * FREED_SAMPLES
    assert audio.first == FREED_SAMPLES - 1
    audio.discard_before(10)  # never less
    assert audio.first == FREED_SAMPLES - 1
    audio.discard_before(FREED_SAMPLES)
    assert audio.stored == FREED_SAMPLES


def test_past_the_end_there_are_zeros() -> None:
    descriptor = create_memory_file("test")
    try:
        write_samples(descriptor, 10, counting(5, 1))
        assert read_samples(descriptor, 8, 10).tolist() == [0, 0, 1, 2, 3, 4, 5, 0, 0, 0]
        assert read_samples(descriptor, 1000, 2).tolist() == [0, 0]
        into = np.full(4, 9, np.float32)
        read_into(descriptor, 13, into)
        assert into.tolist() == [4, 5, 0, 0]
    finally:
        os.close(descriptor)


def test_no_other_program_inherits_the_memory(audio: SharedAudio) -> None:
    assert not os.get_inheritable(audio.descriptor)


def test_audio_that_is_closed_is_not_read_any_more() -> None:
    audio = SharedAudio()
    audio.append(counting(10))
    clip = audio.clip(0, 10)
    audio.close()
    audio.close()
    with pytest.raises(OSError, match="descriptor"):
        clip.load()
    with pytest.raises(OSError, match="descriptor"):
        audio.append(counting(1))
