"""A recording on its way past a diarizer that writes down what it gets."""

from __future__ import annotations

import asyncio
import dataclasses

import numpy as np
import pytest

from parakeet_stt.audio import Audio, AudioBuffer, Samples
from parakeet_stt.offline.diarization import Diarization, Reference
from parakeet_stt.protocols import FRAME_SAMPLES, SpeakerChunk, SpeakerLayout, SpeakerResult

F = FRAME_SAMPLES
LAYOUT = SpeakerLayout(speakers=3, chunk=10 * F, left_context=2 * F, right_context=3 * F)


class Recorder:
    """A diarizer that says what it heard: in each frame, the speaker whose number its first sample is.

    A fraction is how they sound: speaker 2.25 is the second in another voice than 2.0.
    """

    def __init__(self, *, has_voices: bool = False) -> None:
        self.has_voices = has_voices
        self.taken: list[tuple[int, int, int]] = []  # samples of each part, with context before and after it
        self.states: list[object] = []

    async def __call__(self, chunk: SpeakerChunk) -> SpeakerResult:
        assert isinstance(chunk.audio, Audio)
        part = chunk.audio.length - chunk.left_context - chunk.right_context
        self.taken.append((part, chunk.left_context, chunk.right_context))
        self.states.append(chunk.state)
        own = chunk.audio.samples[chunk.left_context : chunk.left_context + part]
        said = np.eye(3, dtype=np.float32)[own[::F].astype(int)]
        turned = 2 * np.pi * (own[::F] % 1)
        voices = said.T @ np.stack([np.cos(turned), np.sin(turned)], 1) if self.has_voices else None
        return SpeakerResult(said, len(self.states), voices)


def speech(*runs: tuple[int, float]) -> Samples:
    """So many frames of each speaker."""
    return np.concatenate([np.full(frames * F, speaker, np.float32) for frames, speaker in runs])


async def follow(audio: AudioBuffer, recorder: Recorder, blocks: list[int], samples: Samples) -> Diarization:
    diarization = Diarization(audio, LAYOUT, recorder)
    at = 0
    for block in blocks:
        audio.append(samples[at : at + block])
        at += block
        diarization.audio.discard_before(at)  # the recognizer has done everything
        await diarization.advance()
        held = audio.length - audio.first
        assert held <= LAYOUT.left_context + LAYOUT.chunk + LAYOUT.right_context + max(blocks)
    await diarization.finish()
    return diarization


@pytest.mark.parametrize("block", [F, 7 * F, 500, 40 * F])
def test_every_frame_is_told_once_in_order_however_the_recording_arrives(block: int) -> None:
    samples = speech((4, 0), (17, 1), (9, 2), (5, 0))[: 35 * F - 300]
    recorder, audio = Recorder(), AudioBuffer()
    blocks = [block] * (len(samples) // block) + [len(samples) % block]
    diarization = asyncio.run(follow(audio, recorder, blocks, samples))
    assert sum(part for part, _, _ in recorder.taken) == len(samples)
    assert recorder.taken[0][1] == 0
    assert all(left == LAYOUT.left_context for _, left, _ in recorder.taken[1:])
    assert all(right == LAYOUT.right_context for _, _, right in recorder.taken[:-1][:2])
    assert recorder.states == [None, *range(1, len(recorder.states))]
    found = [int(diarization.frames.mean(at * 0.08, at * 0.08 + 0.08).argmax()) for at in range(35)]
    assert found == [0] * 4 + [1] * 17 + [2] * 9 + [0] * 5
    assert audio.first >= len(samples) - LAYOUT.left_context - LAYOUT.chunk - block  # whole blocks are freed


def test_what_the_recognizer_still_needs_is_kept() -> None:
    audio, recorder = AudioBuffer(), Recorder()
    diarization = Diarization(audio, LAYOUT, recorder)

    async def run() -> None:
        for _ in range(60):
            audio.append(speech((1, 1)))
        await diarization.advance()

    asyncio.run(run())
    assert audio.first == 0
    diarization.audio.discard_before(20 * F)
    assert audio.first == 20 * F
    assert diarization.audio.clip(0, 25 * F).length == 5 * F
    assert (diarization.audio.first, diarization.audio.length) == (20 * F, 60 * F)


def test_references_come_first_and_name_the_numbers_that_they_get() -> None:
    recorder = Recorder()
    diarization = Diarization(AudioBuffer(), LAYOUT, recorder)

    async def run() -> None:
        for name, speaker in (("Ann", 2), ("Bob", 0), ("Ann's twin", 2)):
            await diarization.introduce(Reference(name, Audio(speech((30, speaker))), recorder))
        assert diarization.names == {2: "Ann", 0: "Bob"}
        assert len(diarization.frames) == 0

    asyncio.run(run())
    assert recorder.states == [None, 1, 2]


def test_a_number_has_the_name_of_the_reference_that_sounds_like_it() -> None:
    recorder = Recorder(has_voices=True)
    audio = AudioBuffer()
    diarization = Diarization(audio, dataclasses.replace(LAYOUT, same_voice=0.9), recorder)

    async def run() -> None:
        for name, speaker in (("Ann", 0.0), ("Bob", 0.3), ("Cem", 0.6), ("Cem's twin", 0.61)):
            await diarization.introduce(Reference(name, Audio(speech((30, speaker))), recorder))
        assert recorder.states == [None] * 4
        assert not diarization.names
        # Nobody sounds as speaker 0 does; Bob has number 1. Cem has number 2, and later another voice has it.
        audio.append(speech((9, 0.15), (6, 1.32), (20, 2.59), (9, 2.0)))
        await diarization.finish()

    asyncio.run(run())
    assert diarization.names == {1: "Bob", 2: "Cem"}
    assert recorder.states[4] is None


def test_a_reference_without_a_voice_names_nobody() -> None:
    recorder, audio = Recorder(has_voices=True), AudioBuffer()
    diarization = Diarization(audio, dataclasses.replace(LAYOUT, same_voice=-1.0), recorder)

    async def quiet(chunk: SpeakerChunk) -> SpeakerResult:
        found = await recorder(chunk)
        return dataclasses.replace(found, voices=np.zeros((3, 2), np.float32))

    async def run() -> None:
        await diarization.introduce(Reference("Ann", Audio(speech((30, 0))), quiet))
        audio.append(speech((20, 0)))
        await diarization.finish()

    asyncio.run(run())
    assert not diarization.names
