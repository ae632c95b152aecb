"""Knows what phrase boosting gains and what it costs: words found, words invented, and time. Does not know the server.

    .venv/bin/python -m scripts.bench.bench_boosting [--weights 0.5 1 2]

Noise is added to the bundled long sample until the model errs; it is then cut at its sentences, and each of them is
decoded with keywords: those of its own words that occur once or twice in the whole sample, and as many of the model's
other words, which are not spoken in it. Counts how many of the spoken ones are found, how many of the others are
invented, and all words that differ from what the model hears without noise. Prints a table, then one JSON line.
"""

from __future__ import annotations

import argparse
import json
import random
import time
from collections import Counter
from dataclasses import asdict, dataclass
from typing import Any

import kaldialign
import numpy as np

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import boosting
from parakeet_stt.engines.catalogue import BUNDLED_FILE
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.media.demux import decode
from parakeet_stt.text.alignment import words_of
from parakeet_stt.text.phrases import Phrases, normalized

FOLDER = BUNDLED_FILE.parent
SHORTEST_WORD = 4  # letters of a keyword
RARE = 2  # times in the whole sample, at most
MARGIN = 0.3  # seconds around a sentence, or half of the pause if that is less
SEED = 7
REPEATS = 4  # of each sentence, each time with other noise


@dataclass(frozen=True)
class Clip:
    """A sentence: its sound without noise, and what is listened for, that is and that is not said in it."""

    audio: Audio
    spoken: tuple[str, ...]
    others: tuple[str, ...]

    @property
    def keywords(self) -> Phrases:
        return normalized([*self.spoken, *self.others])


@dataclass(frozen=True)
class Row:
    """recall: of the keywords that are said, in percent. invented: keywords in the text that are not said."""

    snr_db: float
    weight: float
    keywords: int
    recall: float
    invented: int
    word_errors: float
    seconds: float


def bare(word: str) -> str:
    return "".join(c for c in word.lower() if c.isalnum())


def clips() -> list[Clip]:
    """The long sample's sentences, always with the same keywords."""
    described = {one["file"]: one for one in json.loads((FOLDER / "samples" / "samples.json").read_text())}
    words = described["two-minutes.flac"]["words"]
    with (FOLDER / "samples" / "two-minutes.flac").open("rb") as file:
        samples = decode(file, max_seconds=1000).samples
    counts = Counter(bare(word["word"]) for word in words)
    vocabulary = [bare(word) for word in (FOLDER / "vocabulary.txt").read_text().split()]
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
            said = [bare(one["word"]) for one in sentence]
            spoken = tuple(w for w in dict.fromkeys(said) if len(w) >= SHORTEST_WORD and counts[w] <= RARE)
            absent = [w for w in vocabulary if len(w) >= SHORTEST_WORD and w not in said]
            found.append(Clip(Audio(part), spoken, tuple(pick.sample(absent, len(spoken)))))
            sentence = []
    return found


def noisy(clip: Clip, snr_db: float, seed: int) -> Audio:
    """The clip with white noise."""
    power = float(np.mean(clip.audio.samples**2)) / 10 ** (snr_db / 10)
    noise = np.random.default_rng(seed).standard_normal(len(clip.audio.samples), np.float32) * np.float32(power**0.5)
    return Audio(np.clip(clip.audio.samples + noise, -1, 1))


def heard(engine: Parakeet, batch: list[Audio], phrases: list[Phrases]) -> list[list[str]]:
    """The words of each."""
    hypotheses = engine.recognize(batch, phrases)
    return [
        [bare(word.text) for word in words_of(hypothesis.tokens, audio.duration)]
        for audio, hypothesis in zip(batch, hypotheses, strict=True)
    ]


def measured(engine: Parakeet, sounds: list[Clip], snr_db: float, weight: float) -> Row:
    """Weight 0: without keywords."""
    sounds = sounds * REPEATS
    batch = [noisy(clip, snr_db, seed) for seed, clip in enumerate(sounds)]
    phrases = [clip.keywords for clip in sounds] if weight else []
    clean = heard(engine, [clip.audio for clip in sounds], [])
    if weight:
        engine._boosting = boosting.Boosting(
            engine._model.decoding.decoding.decoding_computer, engine._model.tokenizer, weight=weight
        )
        heard(engine, batch, phrases)  # the trees are made once
    began = time.perf_counter()
    found = heard(engine, batch, phrases)
    seconds = time.perf_counter() - began
    spoken = sum(len(clip.spoken) for clip in sounds)
    right = sum(word in words for clip, words in zip(sounds, found, strict=True) for word in clip.spoken)
    invented = sum(word in words for clip, words in zip(sounds, found, strict=True) for word in clip.others)
    errors = sum(kaldialign.edit_distance(one, other)["total"] for one, other in zip(clean, found, strict=True))
    return Row(snr_db, weight, spoken, 100 * right / spoken, invented, 100 * errors / sum(map(len, clean)), seconds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--weights", type=float, nargs="*", default=[0.25, 0.5, 1.0, 1.5, 2.0])
    parser.add_argument("--snr", type=float, nargs="*", default=[100, 10, 5, 0], help="decibels")
    arguments = parser.parse_args()
    engine = Parakeet(BUNDLED_FILE, device="cpu")
    sounds = clips()
    rows = []
    print(f"bundled tiny model, {len(sounds)} sentences\n\n{'SNR dB':>7}{'weight':>8}{'found':>9}{'invented':>10}"
          f"{'word errors':>13}{'seconds':>9}")  # fmt: skip
    for snr_db in arguments.snr:
        for weight in (0.0, *arguments.weights):
            row = measured(engine, sounds, snr_db, weight)
            rows.append(row)
            print(f"{row.snr_db:7.0f}{row.weight:8.2f}{row.recall:8.1f}%{row.invented:10}{row.word_errors:12.1f}%"
                  f"{row.seconds:9.2f}", flush=True)  # fmt: skip
    print(json.dumps({"model": "parakeet-tdt-tiny", "rows": [asdict(row) for row in rows]}))


if __name__ == "__main__":
    main()
