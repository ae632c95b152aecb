"""Synthesizes sentences whose words are known: those of the tiny model's test set.

Shared by live.py and long.py. parakeet_stt/measure/ counts the words that a model gets wrong.
"""

from __future__ import annotations

import random
from multiprocessing import Pool

from scripts.train import tiny_corpus
from scripts.train.tiny_corpus import TEST_SEED, Speech

FLITE_SHARE = 0.3  # of the voices, where a benchmark mixes them


def synthesize_sentences(count: int, flite_share: float, sentences_per_voice: int = 1) -> list[Speech]:
    """The first `count` sentences of the test set. The voice changes after each `sentences_per_voice` of them."""
    jobs = [(number, flite_share, sentences_per_voice) for number in range(count)]
    with Pool() as pool:
        return pool.map(_synthesize, jobs, chunksize=20)


def _synthesize(job: tuple[int, float, int]) -> Speech:
    """One sentence. job: its number, and the other arguments of `synthesize_sentences`."""
    number, flite_share, sentences_per_voice = job
    seed = TEST_SEED + number
    if sentences_per_voice == 1:
        return tiny_corpus.utterance("sentences", seed, flite_share=flite_share)
    pick = random.Random(f"speaker {number // sentences_per_voice}")
    voice = tiny_corpus.pick_training_voice(pick, "flite" if pick.random() < flite_share else "espeak")
    return tiny_corpus.speak(tiny_corpus.utterance_text("sentences", seed), voice)
