"""Makes the bundled conversation of two, with who says what and when, and references of its voices and of another one.

    python -m scripts.train.diarizer.make_talks

Its sentences are of the test set, which the recognizer was not trained on; the diarizer was trained on none of them.
"""

from __future__ import annotations

import json
import random
from pathlib import Path

import numpy as np
import numpy.typing as npt
import soundfile

from scripts.train.tiny_corpus import SAMPLE_RATE, TEST_SEED, Voice, speak, utterance_text

FOLDER = Path(__file__).parents[3] / "models" / "sortformer-tiny" / "samples"
VOICES = {"one": Voice("espeak", "en-us+m3", 160), "two": Voice("espeak", "en-us+f2", 150, 65)}
ABSENT = Voice("espeak", "en-gb-scotland+m6", 170, 30)
TURNS = ("one", "two", "one", "two", "two", "one", "two", "one", "two", "one")
FIRST, REFERENCES = 50, 150  # numbers of sentences in the test set
REFERENCE_SECONDS = 5


def make_talk() -> tuple[npt.NDArray[np.int16], list[dict[str, object]]]:
    """The conversation, and its turns."""
    pick, parts, turns = random.Random("talk"), [np.zeros(SAMPLE_RATE // 4, np.int16)], []
    for number, name in enumerate(TURNS):
        text = utterance_text("sentences", TEST_SEED + FIRST + number)
        start = sum(map(len, parts)) / SAMPLE_RATE
        speech = speak(text, VOICES[name]).samples
        parts += [speech, np.zeros(int(pick.uniform(0.2, 0.8) * SAMPLE_RATE), np.int16)]
        end = start + len(speech) / SAMPLE_RATE
        turns.append({"speaker": name, "start": round(start, 2), "end": round(end, 2), "text": text})
    return np.concatenate(parts), turns


def make_reference(voice: Voice) -> npt.NDArray[np.int16]:
    """Some seconds of a voice alone."""
    parts = [speak(utterance_text("sentences", TEST_SEED + REFERENCES + number), voice).samples for number in range(4)]
    return np.concatenate(parts)[: REFERENCE_SECONDS * SAMPLE_RATE]


def main() -> None:
    """Write the recordings and samples.json."""
    FOLDER.mkdir(parents=True, exist_ok=True)
    talk, turns = make_talk()
    soundfile.write(FOLDER / "two-voices.flac", talk, SAMPLE_RATE)
    for name, voice in (*VOICES.items(), ("absent", ABSENT)):
        soundfile.write(FOLDER / f"reference-{name}.flac", make_reference(voice), SAMPLE_RATE)
    (FOLDER / "samples.json").write_text(json.dumps({"two-voices.flac": turns}, indent=1) + "\n")


if __name__ == "__main__":
    main()
