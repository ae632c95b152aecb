"""Measures how accurate a model is on the synthetic test set: word error rates, and word times against espeak-ng's.

    apt-get install espeak-ng flite
    python -m scripts.bench.accuracy [--model NAME] [--clips 400]       # or: make accuracy

The training set has no test sentence and no held-out voice. Words are compared twice: as they stand, with case and
punctuation, and without both. Prints a table, then one JSON line. Exits with status 1 if a limit of the bundled model
is exceeded; the limits are for words as they stand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from multiprocessing import Pool
from statistics import median, quantiles
from typing import NamedTuple

from parakeet_stt.audio import Audio
from parakeet_stt.engines import catalogue
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.text.alignment import join_tokens
from parakeet_stt.text.transcript import Word
from scripts.bench.synthetic_speech import count_errors, split_plain
from scripts.train import tiny_corpus
from scripts.train.tiny_corpus import TEST_CLIPS, TEST_SEED

BATCH = 16


class Part(NamedTuple):
    """A part of the test set. limit: the highest word error rate that the bundled model may have, in percent."""

    name: str
    kind: tiny_corpus.Kind
    engine: tiny_corpus.Engine
    held_out: bool
    limit: float


PARTS = (
    Part("sentences, espeak-ng", "sentences", "espeak", False, 2),
    Part("sentences, flite", "sentences", "flite", False, 2),
    Part("random words, espeak-ng", "random", "espeak", False, 8),
    Part("random words, flite", "random", "flite", False, 8),
    Part("sentences, held-out espeak-ng voices", "sentences", "espeak", True, 12),
    Part("sentences, held-out flite voice", "sentences", "flite", True, 12),
)
TIME_LIMITS = {"start_median_ms": 50, "start_p95_ms": 200, "end_median_ms": 100}


def _synthesize(job: tuple[Part, int]) -> tiny_corpus.Speech:
    part, seed = job
    share = 1.0 if part.engine == "flite" else 0.0
    return tiny_corpus.utterance(part.kind, seed, flite_share=share, held_out=part.held_out)


def measure_times(speech: tiny_corpus.Speech, words: Sequence[Word]) -> list[tuple[float, float]]:
    """(start, end) errors in seconds of the words whose times espeak-ng gives; empty unless every word is right."""
    said = split_plain(speech.text)
    if split_plain(" ".join(word.text for word in words)) != said:
        return []
    errors = []
    at = 0
    for truth in speech.words:
        word = "".join(split_plain(truth.word))
        if word not in said[at:]:  # espeak-ng sometimes takes a punctuation mark for a word
            continue
        at = said.index(word, at)
        errors.append((abs(words[at].start - truth.start), abs(words[at].end - truth.end)))
        at += 1
    return errors


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--clips", type=int, default=TEST_CLIPS, help="of each part of the test set")
    arguments = parser.parse_args()
    source = catalogue.resolve(arguments.model)
    model = Parakeet(source.path)
    results: dict[str, list[float]] = {}
    timing: list[tuple[float, float]] = []
    print(f"{source.name}, {arguments.clips} clips of each set\n")
    print(f"{'word error rate, %':40} {'as it stands':>13} {'plain':>7} {'limit':>7}")
    with Pool() as pool:
        for part in PARTS:
            clips = pool.map(_synthesize, [(part, TEST_SEED + index) for index in range(arguments.clips)], chunksize=10)
            strict = loose = words = 0
            for start in range(0, len(clips), BATCH):
                batch = clips[start : start + BATCH]
                audios = [Audio(tiny_corpus.to_float(clip.samples)) for clip in batch]
                for clip, audio, hypothesis in zip(batch, audios, model.recognize(audios), strict=True):
                    found = join_tokens(hypothesis.tokens, audio.duration)
                    text = " ".join(word.text for word in found)
                    strict += count_errors(clip.text.split(), text.split())
                    loose += count_errors(split_plain(clip.text), split_plain(text))
                    words += len(clip.text.split())
                    if part.engine == "espeak":
                        timing += measure_times(clip, found)
            rates = [round(100 * errors / words, 2) for errors in (strict, loose)]
            print(f"{part.name:40} {rates[0]:13} {rates[1]:7} {part.limit:7}", flush=True)
            results[part.name] = rates
    starts, ends = ([error[side] * 1000 for error in timing] for side in (0, 1))
    times = {
        "words": len(timing),
        "start_median_ms": round(median(starts)),
        "start_p95_ms": round(quantiles(starts, n=20)[-1]),
        "end_median_ms": round(median(ends)),
        "end_p95_ms": round(quantiles(ends, n=20)[-1]),
    }
    print(f"\nword times against espeak-ng's, {times['words']} words: start median {times['start_median_ms']} ms, "
          f"95 % within {times['start_p95_ms']} ms; end median {times['end_median_ms']} ms, "
          f"95 % within {times['end_p95_ms']} ms")  # fmt: skip
    print(json.dumps({"model": source.name, "clips": arguments.clips, **results, "times": times}))
    is_accurate = all(results[part.name][0] <= part.limit for part in PARTS)
    is_punctual = all(times[name] <= limit for name, limit in TIME_LIMITS.items())
    sys.exit(not (is_accurate and is_punctual))


if __name__ == "__main__":
    main()
