"""The way of one recording past the diarizer: chunk after chunk as it is read, each with the last one's state.

References of known speakers go first. Where the network says how a speaker sounds, a number has the name of the
reference that sounds like it. Where it does not, the references are a beginning of the recording: the network numbers
speakers in the order in which they speak, so each of them has a number then (docs/decisions/0013-known-speakers.md).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, AudioStore, Clip
from parakeet_stt.protocols import FRAME_SAMPLES, SpeakerChunk, SpeakerLayout, SpeakerResult, SpeakerVoices
from parakeet_stt.text.speakers import SpeakerFrames

Diarize = Callable[[SpeakerChunk], Awaitable[SpeakerResult]]
# Silence after each reference: two references without any are one conversation to the network.
PAUSE_SAMPLES = SAMPLE_RATE // 2 // FRAME_SAMPLES * FRAME_SAMPLES


@dataclass(frozen=True, slots=True, eq=False)
class Reference:
    """A known speaker. audio: in which only they speak, and a pause after it. diarize: tells the speakers in it."""

    name: str
    audio: Clip
    diarize: Diarize


class Diarization:
    """The speakers of one recording, as they become known.

    audio: what takes the place of the recording's audio for everybody else who discards of it. frames: probabilities so
    far. names: of the numbers of known speakers.
    """

    def __init__(self, audio: AudioStore, layout: SpeakerLayout, diarize: Diarize) -> None:
        self.audio = _HeldAudio(audio)
        self.frames = SpeakerFrames(layout.speakers)
        self.names: dict[int, str] = {}
        self._references: list[tuple[str, SpeakerVoices]] = []  # names and voices
        self._compared: set[int] = set()  # numbers whose voices were
        self._layout = layout
        self._diarize = diarize
        self._state: object | None = None
        self._done = 0  # samples

    async def introduce(self, reference: Reference) -> None:
        """Make a speaker known, before the first part of the recording.

        Of two whom the network takes for one, one is named nowhere.
        """
        compares = self._layout.same_voice is not None
        found = await reference.diarize(SpeakerChunk(reference.audio, 0, 0, None if compares else self._state))
        if not len(found.probabilities):
            return
        number = int(found.probabilities.sum(0).argmax())
        if not compares:
            self._state = found.state
            self.names.setdefault(number, reference.name)
        elif found.voices is not None and found.voices[number].any():
            self._references.append((reference.name, found.voices[number]))

    async def advance(self) -> None:
        """Tell the speakers in what has been read, as far as there is audio after it."""
        layout = self._layout
        while self.audio.length >= self._done + layout.chunk + layout.right_context:
            await self._take(layout.chunk, layout.right_context)

    async def finish(self) -> None:
        """All of the recording is read: tell the speakers in the rest of it."""
        layout = self._layout
        while (left := self.audio.length - self._done) > 0:
            part = min(left, layout.chunk)
            await self._take(part, min(left - part, layout.right_context))

    async def _take(self, part: int, right: int) -> None:
        start = max(0, self._done - self._layout.left_context)
        clip = self.audio.clip(start, self._done + part + right)
        found = await self._diarize(SpeakerChunk(clip, self._done - start, right, self._state))
        self._name(found)
        self.frames.append(found.probabilities)
        self._state = found.state
        self._done += part
        self.audio.hold_from(max(0, self._done - self._layout.left_context))

    def _name(self, found: SpeakerResult) -> None:
        """Compare the numbers whose voices are known for the first time."""
        if found.voices is None or self._layout.same_voice is None or not self._references:
            return
        for number, voice in enumerate(found.voices):
            if number in self._compared or not voice.any():
                continue
            self._compared.add(number)
            likeness, name = max((_cosine(voice, own), name) for name, own in self._references)
            if likeness >= self._layout.same_voice:
                self.names[number] = name


def _cosine(one: SpeakerVoices, other: SpeakerVoices) -> float:
    return float(one @ other) / float(np.linalg.norm(one) * np.linalg.norm(other))


class _HeldAudio:
    """Audio that two read, each at its own pace: what either still needs is kept. See `audio.AudioStore`."""

    def __init__(self, audio: AudioStore) -> None:
        self._audio = audio
        self._held = 0
        self._discarded = 0

    @property
    def length(self) -> int:
        return self._audio.length

    @property
    def first(self) -> int:
        return self._audio.first

    def clip(self, start: int, end: int) -> Clip:
        return self._audio.clip(start, end)

    def discard_before(self, end: int) -> None:
        self._discarded = max(self._discarded, end)
        self._discard()

    def hold_from(self, start: int) -> None:
        """The other reader needs nothing before `start`."""
        self._held = start
        self._discard()

    def _discard(self) -> None:
        self._audio.discard_before(min(self._held, self._discarded))
