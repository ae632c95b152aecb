"""What phrase boosting gains: how many rare words are found in noise, and how many others are invented.

Noise is added to the bundled long sample until the model errs. Each of its sentences is decoded with keywords: its own
words that occur once or twice in the whole sample, and as many of the model's other words, which are not spoken in it.
"""

from __future__ import annotations

import json
import random
from collections import Counter
from dataclasses import dataclass
from typing import Any

import kaldialign
import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.engines.resampling_filters import make_filter
from parakeet_stt.media.demux import decode
from parakeet_stt.text.alignment import join_tokens
from parakeet_stt.text.phrases import Phrases, normalize_phrases

FOLDER = BUNDLED_FILE.parent
SHORTEST_WORD = 4  # letters of a keyword
RARE = 2  # times in the whole sample, at most
MARGIN = 0.3  # seconds around a sentence, or half of the pause if that is less
SEED = 7
REPEATS = 2  # of each sentence, each time with other noise


@dataclass(frozen=True)
class Clip:
    """A sentence: its audio without noise, and the keywords that are spoken and that are not spoken in it."""

    audio: Audio
    spoken: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def keywords(self) -> Phrases:
        return normalize_phrases([*self.spoken, *self.others])


@dataclass(frozen=True)
class Found:
    """recall: of the spoken keywords, in percent. invented: keywords in the text that are not spoken.

    word_errors: words that differ from those that the model finds without noise, in percent.
    """

    keywords: int
    recall: float
    invented: int
    word_errors: float


def clips() -> list[Clip]:
    """The long sample's sentences, always with the same keywords."""
    described = {one["file"]: one for one in json.loads((FOLDER / "samples" / "samples.json").read_text())}
    words = described["two-minutes.flac"]["words"]
    with (FOLDER / "samples" / "two-minutes.flac").open("rb") as file:
        samples = decode(file, max_seconds=1000, make_filter=make_filter).samples
    counts = Counter(_bare(word["word"]) for word in words)
    vocabulary = [_bare(word) for word in (FOLDER / "vocabulary.txt").read_text().split()]
    pick = random.Random(SEED)
    found: list[Clip] = []
    sentence: list[dict[str, Any]] = []
    ended = 0.0
    for index, word in enumerate(words):
        sentence.append(word)
        if word["word"][-1] in ".?":
            start = max(float(sentence[0]["start"]) - MARGIN, (ended + float(sentence[0]["start"])) / 2)
            ended = float(word["end"])
            following = float(words[index + 1]["start"]) if index + 1 < len(words) else ended + MARGIN
            end = min(ended + MARGIN, (ended + following) / 2)
            part = samples[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
            own = [_bare(one["word"]) for one in sentence]
            spoken = tuple(w for w in dict.fromkeys(own) if len(w) >= SHORTEST_WORD and counts[w] <= RARE)
            absent = [w for w in vocabulary if len(w) >= SHORTEST_WORD and w not in own]
            found.append(Clip(Audio(part), spoken, tuple(pick.sample(absent, len(spoken)))))
            sentence = []
    return found


def find(engine: Parakeet, sentences: list[Clip], snr_db: float, *, boosted: bool) -> Found:
    """Decode all sentences in white noise, with or without their keywords."""
    repeated = sentences * REPEATS
    batch = [_add_noise(clip, snr_db, seed) for seed, clip in enumerate(repeated)]
    clean = _words(engine, [clip.audio for clip in repeated], [])
    words = _words(engine, batch, [clip.keywords for clip in repeated] if boosted else [])
    spoken = sum(len(clip.spoken) for clip in repeated)
    right = sum(word in own for clip, own in zip(repeated, words, strict=True) for word in clip.spoken)
    invented = sum(word in own for clip, own in zip(repeated, words, strict=True) for word in clip.others)
    errors = sum(kaldialign.edit_distance(one, other)["total"] for one, other in zip(clean, words, strict=True))
    return Found(spoken, 100 * right / spoken, invented, 100 * errors / sum(map(len, clean)))


def _add_noise(clip: Clip, snr_db: float, seed: int) -> Audio:
    power = float(np.mean(clip.audio.samples**2)) / 10 ** (snr_db / 10)
    noise = np.random.default_rng(seed).standard_normal(len(clip.audio.samples), np.float32) * np.float32(power**0.5)
    return Audio(np.clip(clip.audio.samples + noise, -1, 1))


def _words(engine: Parakeet, batch: list[Audio], phrases: list[Phrases]) -> list[list[str]]:
    hypotheses = engine.recognize(batch, phrases)
    return [
        [_bare(word.text) for word in join_tokens(hypothesis.tokens, audio.duration)]
        for audio, hypothesis in zip(batch, hypotheses, strict=True)
    ]


def _bare(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())
