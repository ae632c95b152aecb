"""Mixes utterances of several voices into conversations, with who speaks in every frame of 80 ms."""

from __future__ import annotations

import random
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from scripts.train.diarizer.tiny_voices import LEVEL_FRAME, Utterance
from scripts.train.tiny_corpus import SAMPLE_RATE

FRAME_SAMPLES = 1280  # 80 ms, a step of the network
COLUMNS = 4  # speakers that the network can tell apart
REFERENCE_SECONDS, REFERENCE_UTTERANCES = 5, 20
Samples = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Speaker:
    """A voice (its place in the list) as it sounds in one conversation. rate: of playing; gain, tilt: of the sound."""

    voice: int
    rate: float
    gain: float
    tilt: float


@dataclass(frozen=True)
class Conversation:
    """A mixture. samples: float32 at 16 kHz, whole frames.

    speaking: float32, shape (frames, 4): 1 where that speaker speaks, in the order of their first words. voices: of
    each column, its place in the list of voices; -1 where the column has no speaker.
    """

    samples: Samples
    speaking: npt.NDArray[np.float32]
    voices: tuple[int, ...]


class Mixer:
    """Makes conversations of these voices, with one generator of random numbers."""

    def __init__(self, voices: Sequence[Sequence[Utterance]], pick: random.Random) -> None:
        self._voices = voices
        self._weights = [len(utterances) for utterances in voices]
        self._pick = pick

    def choose_speakers(self, count: int) -> list[Speaker]:
        """So many different voices. Each gets a level, a tilt and a pitch that are a little new every time."""
        pick, chosen = self._pick, dict[int, Speaker]()
        while len(chosen) < count:
            voice = pick.choices(range(len(self._voices)), self._weights)[0]
            gain = 10 ** (pick.uniform(-8, 0) / 20)
            chosen.setdefault(voice, Speaker(voice, pick.uniform(0.95, 1.05), gain, pick.uniform(-0.35, 0.35)))
        return list(chosen.values())

    def choose_utterance(self, speaker: Speaker) -> tuple[Samples, npt.NDArray[np.bool_]]:
        """One utterance as this speaker says it, and for each 10 ms whether it is speech."""
        utterance = self._pick.choice(self._voices[speaker.voice])
        size = int(len(utterance.samples) / speaker.rate)
        places = np.arange(size) * speaker.rate
        samples = np.interp(places, np.arange(len(utterance.samples)), utterance.samples).astype(np.float32)
        samples[1:] += speaker.tilt * samples[:-1]
        steps = (np.arange(size // LEVEL_FRAME) * speaker.rate).astype(int)
        return samples * speaker.gain, utterance.speaking[np.minimum(steps, len(utterance.speaking) - 1)]

    def make_reference(self, speaker: Speaker) -> Samples:
        """Five seconds in which this speaker alone speaks."""
        clips = [self.choose_utterance(speaker)[0] for _ in range(REFERENCE_UTTERANCES)]
        samples = np.concatenate(clips)[: REFERENCE_SECONDS * SAMPLE_RATE]
        return samples * np.float32(0.3 / np.abs(samples).max())

    def mix(
        self,
        seconds: float,
        speakers: Sequence[Speaker],
        *,
        overlap: float = 0.3,
        opening: Sequence[int] = (),
        absent: Collection[int] = (),
    ) -> Conversation:
        """A conversation of that length. At most two speak at once.

        overlap: share of the turns that begin before the one before has ended. opening: numbers of speakers who speak
        first, in this order, one after the other. absent: numbers of speakers who speak only there.
        """
        pick, count, frames = self._pick, len(speakers), round(seconds * SAMPLE_RATE / FRAME_SAMPLES)
        audio = np.zeros(frames * FRAME_SAMPLES, np.float32)
        speaking = np.zeros((frames * FRAME_SAMPLES // LEVEL_FRAME, count), np.bool_)
        end, end_before = pick.uniform(0, 0.8), 0.0  # of the last turn, and of the one that it overlaps; seconds
        last: int | None = None
        queue = list(opening)
        talkers = [number for number in range(count) if number not in absent]
        fresh = [number for number in pick.sample(talkers, len(talkers)) if number not in queue]
        while end < seconds - 0.3:
            apart = bool(queue)
            others = [number for number in talkers if number != last]
            if queue:
                number = queue.pop(0)
            elif fresh and pick.random() < 0.5:
                number = fresh.pop()
            elif last is not None and last in talkers and (pick.random() < 0.2 or not others):
                number = last
            else:
                number = pick.choice(others)
            samples, active = self.choose_utterance(speakers[number])
            gaps = pick.uniform(0.1, 1.2), pick.uniform(0, 0.05), -pick.uniform(0.3, 2.0)
            gap = pick.choices(gaps, (0.4, 0.6 - overlap, overlap))[0]
            if apart or last is None or (number == last and gap < 0):
                gap = abs(gap) * 0.5
            step = int(100 * max(end + gap, end_before if number != last else end, 0))
            start = step * LEVEL_FRAME
            audio[start : start + len(samples)] += samples[: max(0, len(audio) - start)]
            speaking[step : step + len(active), number] |= active[: max(0, len(speaking) - step)]
            end_before = end if end > step / 100 else 0.0
            end, last = max(end, step / 100 + len(samples) / SAMPLE_RATE), number
        noise = np.random.default_rng(pick.getrandbits(32)).standard_normal(len(audio), np.float32)
        audio += noise * np.float32(10 ** (pick.uniform(-75, -40) / 20))
        audio *= np.float32(10 ** (pick.uniform(-26, -6) / 20))
        return _in_order(audio, speaking, speakers)


def _in_order(audio: Samples, speaking: npt.NDArray[np.bool_], speakers: Sequence[Speaker]) -> Conversation:
    """The conversation with its speakers in the order in which they are first heard."""
    steps = FRAME_SAMPLES // LEVEL_FRAME
    frames = speaking.reshape(-1, steps, len(speakers)).mean(1) >= 0.5
    heard = [number for number in range(len(speakers)) if frames[:, number].any()]
    heard.sort(key=lambda number: int(frames[:, number].argmax()))
    ordered = np.zeros((len(frames), COLUMNS), np.float32)
    ordered[:, : len(heard)] = frames[:, heard]
    voices = [speakers[number].voice for number in heard] + [-1] * (COLUMNS - len(heard))
    return Conversation(audio, ordered, tuple(voices))
