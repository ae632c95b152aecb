"""Makes the bundled sample recordings, with their true texts and word times.

    python -m scripts.train.make_samples

Their sentences are of the test set (`TEST_SEED`), which is not trained on. `words` in samples.json lists the words
whose times espeak-ng gives. It speaks some pairs ("in the") as one word; those are left out.
"""

from __future__ import annotations

import itertools
import json
import random
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import soundfile

from scripts.train.tiny_corpus import SAMPLE_RATE, TEST_SEED, SpokenWord, Voice, speak, utterance_text

FOLDER = Path(__file__).parents[2] / "models" / "parakeet-tdt-tiny" / "samples"
SHORTEST_PAUSE, LONGEST_PAUSE = 0.3, 2.5  # seconds between the sentences of the long sample
LONG_SECONDS = 140


class Recipe(NamedTuple):
    """How one sample is made. first: number of its first sentence in the test set."""

    voice: Voice
    first: int


# The model still recognizes the two short ones at 8 kHz through lossy codecs, which the test of all formats needs. Most
# sentences it does not.
RECIPES = {
    "short": Recipe(Voice("espeak", "en-us", 140), 42),
    "two-sentences": Recipe(Voice("espeak", "en-us", 140), 2),
    "two-minutes": Recipe(Voice("espeak", "en-us+m3", 160), 50),
}


def say(texts: list[str], voice: Voice, pick: random.Random) -> tuple[npt.NDArray[np.int16], list[SpokenWord]]:
    """All texts in one voice, with pauses between them, and the times of their words from the start."""
    parts: list[npt.NDArray[np.int16]] = [np.zeros(SAMPLE_RATE // 5, np.int16)]
    words: list[SpokenWord] = []
    for text in texts:
        offset = sum(map(len, parts)) / SAMPLE_RATE
        speech = speak(text, voice)
        words += [SpokenWord(w.word, round(w.start + offset, 3), round(w.end + offset, 3)) for w in speech.words]
        pause = pick.uniform(SHORTEST_PAUSE, LONGEST_PAUSE)
        parts += [speech.samples, np.zeros(int(pause * SAMPLE_RATE), np.int16)]
    return np.concatenate(parts), words


def main() -> None:
    """Write the recordings and samples.json."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    described = []
    for name, (voice, first) in RECIPES.items():
        sentences = (utterance_text("sentences", TEST_SEED + first + index) for index in itertools.count())
        texts = [next(sentences)]
        samples, words = say(texts, voice, random.Random(name))
        while name == "two-minutes" and len(samples) < LONG_SECONDS * SAMPLE_RATE:
            texts.append(next(sentences))
            samples, words = say(texts, voice, random.Random(name))
        soundfile.write(FOLDER / f"{name}.flac", samples, SAMPLE_RATE)
        described.append(
            {
                "file": f"{name}.flac",
                "seconds": round(len(samples) / SAMPLE_RATE, 3),
                "voice": f"espeak-ng {voice.name} at {voice.speed:.0f} words a minute",
                "text": " ".join(texts),
                "words": [{"word": w.word, "start": w.start, "end": w.end} for w in words],
            }
        )
    (FOLDER / "samples.json").write_text(json.dumps(described, indent=1) + "\n")


if __name__ == "__main__":
    main()
