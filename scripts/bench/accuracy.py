"""Measures how accurate a model is on the synthetic test set: word error rates, and word times against espeak-ng's.

    apt-get install espeak-ng flite
    python -m scripts.bench.accuracy [--model NAME] [--clips 400]       # or: make accuracy
    python -m scripts.bench.accuracy --precision float32 --beside int8  # the same clips in both

The training set has no test sentence and no held-out voice. The synthesizers add noise of their own at each run, which
moves a rate by 0.15 points: only rates of one run can be compared closely. Words are compared twice: as they stand,
with case and punctuation, and without both. No server runs: `parakeet evaluate` measures one, on the files of --write.
Prints a table, then one JSON line. Exits with status 1 if a limit of the bundled model is exceeded; the limits are for
words as they stand.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from multiprocessing import Pool
from pathlib import Path
from typing import NamedTuple, get_args

from parakeet_stt.audio import Audio
from parakeet_stt.engines import catalogue, devices
from parakeet_stt.engines.parakeet import Parakeet
from parakeet_stt.measure.clips import write_wav
from parakeet_stt.measure.normalizers import split_plain
from parakeet_stt.measure.word_errors import Errors, count_errors
from parakeet_stt.measure.word_times import measure_times, summarize
from parakeet_stt.text.alignment import join_tokens
from parakeet_stt.text.transcript import Word
from scripts.train import tiny_corpus
from scripts.train.tiny_corpus import SAMPLE_RATE, TEST_CLIPS, TEST_SEED

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


def _spoken_words(speech: tiny_corpus.Speech) -> list[Word]:
    """The words whose times espeak-ng gives; it sometimes takes a punctuation mark for a word."""
    return [Word(word.word, word.start, word.end, ()) for word in speech.words]


def write_part(folder: Path, part: Part, clips: Sequence[tiny_corpus.Speech]) -> None:
    """The clips as wav files with a manifest beside them, which `parakeet evaluate` takes."""
    name = part.name.replace(",", "").replace(" ", "-")
    (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / f"{name}.jsonl").open("w") as manifest:
        for number, clip in enumerate(clips):
            file = f"{name}/{number:03}.wav"
            (folder / file).write_bytes(write_wav(clip.samples))
            words = [{"word": word.word, "start": word.start, "end": word.end} for word in clip.words]
            entry = {
                "audio_filepath": file,
                "duration": len(clip.samples) / SAMPLE_RATE,
                "text": clip.text,
                "words": words,
            }
            manifest.write(json.dumps(entry) + "\n")


def measure(
    model: Parakeet, clips: Sequence[tiny_corpus.Speech], timing: list[tuple[float, float]]
) -> tuple[Errors, Errors]:
    """Errors in the words as they stand, and in the plain words. timing: more differences of words' times."""
    strict = loose = Errors()
    for start in range(0, len(clips), BATCH):
        batch = clips[start : start + BATCH]
        audios = [Audio(tiny_corpus.to_float(clip.samples)) for clip in batch]
        for clip, audio, hypothesis in zip(batch, audios, model.recognize(audios), strict=True):
            found = join_tokens(hypothesis.tokens, audio.duration)
            text = " ".join(word.text for word in found)
            strict += count_errors(clip.text.split(), text.split())
            loose += count_errors(split_plain(clip.text), split_plain(text))
            timing += measure_times(_spoken_words(clip), found)
    return strict, loose


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", help="a catalogue name, path or store tag; the bundled model unless given")
    parser.add_argument("--precision", default="auto", choices=get_args(devices.Precision))
    parser.add_argument("--beside", choices=get_args(devices.Precision), help="of another that hears the same clips")
    parser.add_argument("--write", type=Path, metavar="FOLDER", help="also write the test set, for `parakeet evaluate`")
    parser.add_argument("--clips", type=int, default=TEST_CLIPS, help="of each part of the test set")
    arguments = parser.parse_args()
    source = catalogue.resolve(arguments.model)
    model = Parakeet(source.path, precision=arguments.precision)
    beside = Parakeet(source.path, precision=arguments.beside) if arguments.beside else None
    results: dict[str, list[float]] = {}
    beside_results: dict[str, list[float]] = {}
    counts: dict[str, list[Errors]] = {}
    timing: list[tuple[float, float]] = []
    print(f"{source.name}, {arguments.clips} clips of each set\n")
    print(f"{'word error rate, %':40} {'as it stands':>13} {'plain':>7} {'limit':>7}")
    with Pool() as pool:
        for part in PARTS:
            clips = pool.map(_synthesize, [(part, TEST_SEED + index) for index in range(arguments.clips)], chunksize=10)
            if arguments.write:
                write_part(arguments.write, part, clips)
            strict, loose = measure(model, clips, timing)
            counts[part.name] = [strict, loose]
            rates = [round(errors.rate, 2) for errors in (strict, loose)]
            results[part.name] = rates
            line = f"{part.name:40} {rates[0]:13} {rates[1]:7} {part.limit:7}"
            if beside:
                others = beside_results[part.name] = [round(one.rate, 2) for one in measure(beside, clips, [])]
                line += f"   {arguments.beside}: {others[0]:5} {others[1]:5}"
            print(line, flush=True)
    summary = summarize(timing)
    assert summary
    times = asdict(summary)
    print(f"\nword times against espeak-ng's, {times['words']} words: start median {times['start_median_ms']} ms, "
          f"95 % within {times['start_p95_ms']} ms; end median {times['end_median_ms']} ms, "
          f"95 % within {times['end_p95_ms']} ms")  # fmt: skip
    errors = {name: [one.total for one in both] for name, both in counts.items()}
    found = {"model": source.name, "clips": arguments.clips, **results, "errors": errors, "times": times}
    print(json.dumps({**found, **({arguments.beside: beside_results} if beside else {})}))
    is_accurate = all(results[part.name][0] <= part.limit for part in PARTS)
    is_punctual = all(times[name] <= limit for name, limit in TIME_LIMITS.items())
    sys.exit(not (is_accurate and is_punctual))


if __name__ == "__main__":
    main()
