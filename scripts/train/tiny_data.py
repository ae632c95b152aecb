"""Makes the tiny model's training data: synthesizes its clips, joins and augments them, and puts them in batches."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import Pool
from pathlib import Path

import numpy as np
import numpy.typing as npt
import scipy.fft

from scripts.train import tiny_corpus
from scripts.train.tiny_corpus import SAMPLE_RATE, TEST_CLIPS, TEST_SEED
from scripts.train.tiny_recipe import CORPUS, DEVELOPMENT, DEVELOPMENT_SEED, Stage

Samples = npt.NDArray[np.float32]
LONGEST_CLIP = 14  # seconds


@dataclass(frozen=True)
class Clip:
    """A clip, and what is said in it. samples: mono, 16 kHz."""

    samples: npt.NDArray[np.int16]
    text: str

    @property
    def seconds(self) -> float:
        """Length of the clip."""
        return len(self.samples) / SAMPLE_RATE


Example = tuple[Samples, str]  # what the network is trained on: one clip or several, and their text


def build_corpus(folder: Path, parts: Sequence[str]) -> tuple[dict[str, list[Clip]], dict[str, list[Clip]]]:
    """The training and development clips, synthesized once into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Pool() as pool:
        development = {}
        for kind, count in DEVELOPMENT.items():
            for engine, share in (("espeak", 0.0), ("flite", 1.0)):
                jobs = [(kind, DEVELOPMENT_SEED + index, share) for index in range(count)]
                development[f"{kind} {engine}"] = pool.map(_synthesize, jobs, chunksize=8)
        held_out = {s for clips in development.values() for clip in clips for s in split_sentences(clip.text)}
        for kind in ("sentences", "random"):
            for index in range(TEST_CLIPS):
                held_out.update(split_sentences(tiny_corpus.utterance_text(kind, TEST_SEED + index)))
        training = {}
        for name in parts:
            part = CORPUS[name]
            path = folder / f"{name}.npz"
            if not path.exists():
                jobs = [(part.kind, part.first + index, part.flite) for index in range(part.count)]
                clips = pool.map(_synthesize, jobs, chunksize=64)
                kept = [clip for clip in clips if len(clip.samples) < LONGEST_CLIP * SAMPLE_RATE]
                if part.kind != "words":
                    kept = [clip for clip in kept if not held_out.intersection(split_sentences(clip.text))]
                np.savez(
                    path,
                    samples=np.concatenate([clip.samples for clip in kept]),
                    lengths=np.array([len(clip.samples) for clip in kept]),
                    texts=np.array([clip.text for clip in kept]),
                )
            with np.load(path) as saved:
                sounds = np.split(saved["samples"], np.cumsum(saved["lengths"])[:-1])
                training[name] = [Clip(sound, str(text)) for sound, text in zip(sounds, saved["texts"], strict=True)]
    return training, development


def _synthesize(job: tuple[tiny_corpus.Kind, int, float]) -> Clip:
    kind, seed, flite_share = job
    speech = tiny_corpus.utterance(kind, seed, flite_share=flite_share)
    return Clip(speech.samples, speech.text)


def split_sentences(text: str) -> list[str]:
    """The sentences of a clip's text."""
    return text.replace("?", "?|").replace(".", ".|").replace("| ", "|").strip("|").split("|")


def augment(clip: Samples, amount: float, pick: random.Random) -> Samples:
    """Change speed, band, level and noise floor, each by chance and by `amount` in [0, 1]; the text stays the same."""
    if pick.random() < 0.5 * amount:  # resampling shifts pitch and formants too: another speaker
        factor = pick.uniform(0.88, 1.12)
        clip = np.interp(np.arange(0, len(clip) - 1, factor), np.arange(len(clip)), clip).astype(np.float32)
    if pick.random() < 0.5 * amount:  # telephony and lossy codecs
        spectrum = np.fft.rfft(clip, scipy.fft.next_fast_len(len(clip)))
        spectrum[int(len(spectrum) * pick.uniform(3_200, 7_500) / (SAMPLE_RATE / 2)) :] = 0
        clip = np.fft.irfft(spectrum)[: len(clip)].astype(np.float32)
    clip = clip * np.float32(10 ** (pick.uniform(-14, 3) / 20 * amount))
    if pick.random() < 0.6 * amount:
        level = 10 ** (pick.uniform(-75, -42) / 20)
        clip = clip + np.random.default_rng(pick.getrandbits(32)).standard_normal(len(clip), np.float32) * level
    return clip.astype(np.float32)


def trim_silence(samples: Samples) -> Samples:
    """Cut the clip to 40 ms before it is first louder than a fiftieth of its peak, and 40 ms after it is last."""
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 50)
    return samples[max(0, loud[0] - SAMPLE_RATE // 25) : loud[-1] + SAMPLE_RATE // 25]


def make_example(clips: Sequence[Clip], stage: Stage, pick: random.Random) -> Example:
    """One training example from one or more clips, with silence around them and pauses between them."""
    parts: list[Samples] = []
    has_pauses = len(clips) < 2 or pick.random() >= stage.run_on
    for clip in clips:
        lead = pick.randint(0, int(0.5 * SAMPLE_RATE * stage.noise)) if not parts else pick.randint(800, 16_000)
        samples = tiny_corpus.to_float(clip.samples)
        if not has_pauses:
            samples, lead = trim_silence(samples), lead if not parts else pick.randint(0, 800)
            samples = tiny_corpus.cut_pauses(samples, pick.randint(4, 12)) if stage.close else samples
        parts += [np.zeros(lead, np.float32), samples]
    parts.append(np.zeros(pick.randint(0, int(0.5 * SAMPLE_RATE * stage.noise)), np.float32))
    return augment(np.concatenate(parts), stage.noise, pick), " ".join(clip.text for clip in clips)


def make_batches(
    pool: Sequence[Clip], stage: Stage, max_seconds: float, pick: random.Random
) -> Iterator[list[list[Clip]]]:
    """One pass over `pool`, in batches of similar length and `max_seconds`. Some clips are joined with others."""
    order = list(pool)
    pick.shuffle(order)
    groups: list[list[Clip]] = []
    while order:
        group = [order.pop()]
        length = group[0].seconds
        if pick.random() < stage.joins:
            target = pick.uniform(0, stage.join)
            while order and length + order[-1].seconds + 1 < target:
                group.append(order.pop())
                length += group[-1].seconds + 0.5
        groups.append(group)

    def seconds(group: list[Clip]) -> float:
        return sum(len(clip.samples) for clip in group) / SAMPLE_RATE + 0.5 * len(group)

    groups.sort(key=lambda group: seconds(group) + pick.uniform(-0.4, 0.4))
    batches: list[list[list[Clip]]] = [[]]
    for group in groups:
        longest = max(map(seconds, [*batches[-1], group]))
        if batches[-1] and longest * (len(batches[-1]) + 1) > max_seconds:
            batches.append([])
        batches[-1].append(group)
    pick.shuffle(batches)
    yield from batches
