"""Synthesizes the voices that the tiny diarizer is trained and tested on: for each, a set of utterances.

Needs the Debian packages espeak-ng and flite, as tiny_corpus.py does.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soxr

from scripts.train.tiny_corpus import ESPEAK_ACCENTS, SAMPLE_RATE, Voice, random_words, sentence, speak, to_float

HELD_OUT_VARIANTS = frozenset(
    ("m7", "f5", "victor", "Nguyen", "michel", "Andrea", "edward2", "steph3", "Marco", "aunty", "benjamin", "linda")
)  # some of them are voices that the tiny recognizer knows
HELD_OUT_FLITE, HEARD_FLITE = ("rms",), ("slt", "kal16", "awb")
# Not voices of a person, or much alike.
LEFT_OUT = frozenset(
    ("whisper", "whisperf", "croak", "Demonic", "UniRobot", "Tweaky", "anikaRobot", "fast", "announcer", "Storm", "Mr")
)
FLITE_FACTORS = (0.84, 0.92, 1.0, 1.09, 1.18)
LEVEL_FRAME = SAMPLE_RATE // 100  # speech is told from silence in steps of 10 ms
SHORT_PAUSE = 20  # in such steps: a pause within a word or a phrase is speech


@dataclass(frozen=True)
class Person:
    """A voice, played faster or slower by `factor`, which moves its pitch and its formants together."""

    voice: Voice
    factor: float


@dataclass(frozen=True)
class Utterance:
    """One utterance. samples: float32 at 16 kHz, the loudest is 1. speaking: bool for each 10 ms."""

    samples: npt.NDArray[np.float32]
    speaking: npt.NDArray[np.bool_]


def make_people(count: int, seed: int, *, held_out: bool) -> list[Person]:
    """`count` persons of espeak-ng, and every person of flite; `held_out`: those that are not trained on."""
    pick = random.Random(f"{seed}-{held_out}")
    listing = subprocess.run(["espeak-ng", "--voices=variant"], capture_output=True, text=True, check=True).stdout
    variants = sorted(
        name
        for name in set(re.findall(r"!v/(\S+)", listing)) - LEFT_OUT
        if not name.startswith("robosoft") and (name in HELD_OUT_VARIANTS) == held_out
    )
    people = [
        Person(
            Voice(
                "espeak",
                f"{pick.choice(ESPEAK_ACCENTS)}+{variants[index % len(variants)]}",
                pick.randint(140, 210),
                pick.randint(15, 85),
            ),
            pick.uniform(0.88, 1.14),
        )
        for index in range(count)
    ]
    for name in HELD_OUT_FLITE if held_out else HEARD_FLITE:
        people += [Person(Voice("flite", name, pick.uniform(0.9, 1.15)), factor) for factor in FLITE_FACTORS]
    return people


def make_text(pick: random.Random) -> str:
    """What one utterance says: a sentence, or two to fourteen random words."""
    return sentence(pick) if pick.random() < 0.5 else random_words(pick, *pick.choice(((2, 3), (5, 8), (9, 14))))


def say(text: str, person: Person) -> npt.NDArray[np.float32]:
    """The text in that person's voice, without silence at its ends."""
    samples = to_float(speak(text, person.voice).samples)
    samples = soxr.resample(samples, SAMPLE_RATE * person.factor, SAMPLE_RATE)
    levels = _levels(samples)
    loud = np.flatnonzero(levels > levels.max() / 60) * LEVEL_FRAME
    spoken: npt.NDArray[np.float32] = samples[loud[0] : loud[-1] + LEVEL_FRAME]
    return spoken


def find_speech(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """For each 10 ms, whether it is speech, or a short pause between two places that are."""
    levels = _levels(samples)
    places, loud = np.arange(len(levels)), levels > levels.max() / 60
    before = np.maximum.accumulate(np.where(loud, places, -(10**6)))
    after = np.minimum.accumulate(np.where(loud, places, 10**6)[::-1])[::-1]
    return after - before <= SHORT_PAUSE


def load_voices(
    path: Path, people: Sequence[Person], each: int, seed: int, *, flite_share: int = 4
) -> list[list[Utterance]]:
    """`each` utterances of every person, synthesized once into `path`.

    A person of flite has `flite_share` times as many, since there are few such persons.
    """
    if not path.exists():
        pick = random.Random(seed)
        owners = [
            index
            for index, person in enumerate(people)
            for _ in range(each * (flite_share if person.voice.engine == "flite" else 1))
        ]
        clips = [say(make_text(pick), people[owner]).astype(np.float16) for owner in owners]
        np.savez(path, owners=owners, lengths=[len(clip) for clip in clips], samples=np.concatenate(clips))
    voices: list[list[Utterance]] = [[] for _ in people]
    with np.load(path) as saved:
        clips = np.split(saved["samples"], np.cumsum(saved["lengths"])[:-1])
        for owner, clip in zip(saved["owners"], clips, strict=True):
            samples = clip.astype(np.float32)
            samples /= np.abs(samples).max() + 1e-6
            voices[owner].append(Utterance(samples, find_speech(samples)))
    return voices


def _levels(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    frames = samples[: len(samples) // LEVEL_FRAME * LEVEL_FRAME].reshape(-1, LEVEL_FRAME)
    levels: npt.NDArray[np.float32] = np.sqrt((frames**2).mean(1) + 1e-12)
    return levels
