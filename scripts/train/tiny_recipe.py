"""The recipe of the tiny model: its size, its training set, and the stages of its training."""

from __future__ import annotations

from dataclasses import dataclass

from scripts.train import tiny_corpus
from scripts.train.network import NetworkSize

SEED = 20261122
TOKENS = 256
# The same network as Parakeet-TDT 0.6B, only narrower and shallower, with 80 mel features instead of 128.
SIZE = NetworkSize(
    features=80, width=128, layers=8, heads=4, conv_channels=32, hidden=128, predictor_layers=1, dropout=0.05
)


@dataclass(frozen=True)
class Part:
    """A part of the training set: `count` clips of one kind, from the seed `first` on. flite: share of its voices."""

    kind: tiny_corpus.Kind
    first: int
    count: int
    flite: float


CORPUS = {
    "words": Part("words", 0, 12_000, 0.3),
    "random": Part("random", 0, 24_000, 0.45),
    "sentences": Part("sentences", 0, 26_000, 0.35),
    "more random": Part("random", 24_000, 24_000, 0.25),
    "yet more random": Part("random", 48_000, 24_000, 0.4),
    "last random": Part("random", 72_000, 8_000, 0.4),
    "more sentences": Part("sentences", 26_000, 14_000, 0.35),
    "changing random": Part("random", 80_000, 6_000, 0.4),
    "changing sentences": Part("sentences", 40_000, 12_000, 0.35),
}
# Clips of each engine; from other seeds, and without any sentence of the training set.
DEVELOPMENT: dict[tiny_corpus.Kind, int] = {"random": 100, "sentences": 100}
DEVELOPMENT_SEED = 5_000_000  # the test set has further seeds: tiny_corpus.TEST_SEED


@dataclass(frozen=True)
class Stage:
    """One stage of the training.

    seconds: of audio in a batch, at most. rate: of learning, first and last, along a cosine. ctc, tdt: weights of the
    two losses. noise: 0 for clean speech to 1 for full augmentation. join: the longest example, in seconds, that is
    made of several clips with pauses between them. parts: of the corpus, and how many clips of each. fresh: a new
    optimizer, so that the stage needs nothing but the weights before it. joins: the share of examples that are joined.
    run_on: the share of those without any pause. close: whether the pauses inside their clips are cut too. keep: the
    share of the weights before the stage in the mean of both that is its result, which learns the new and forgets less
    of the old (Wortsman et al., arXiv:2109.01903).
    """

    name: str
    steps: int
    seconds: float
    rate: tuple[float, float]
    ctc: float
    tdt: float
    noise: float
    join: float
    parts: dict[str, int]
    fresh: bool = False
    joins: float = 0.08
    run_on: float = 0.0
    close: bool = False
    keep: float = 0.0


# No dropout: on a CPU its random numbers take a third of a step, and no clip is seen more than a few times.
STAGES = (
    Stage("words", 900, 48, (1e-3, 1e-3), 1, 0, 0.0, 0, {"words": 12_000}),
    Stage("phrases", 600, 70, (1e-3, 1e-3), 1, 0, 0.5, 0, {"words": 4_000, "random": 24_000}),
    Stage("transducer", 500, 90, (1e-3, 1e-3), 0.3, 1, 0.5, 0, {"random": 24_000, "sentences": 10_000}),
    Stage("everything", 3_500, 64, (1e-3, 2e-4), 0, 1, 1.0, 20, {"random": 24_000, "sentences": 26_000}, fresh=True),
    Stage("finish", 4_400, 64, (6e-4, 1e-5), 0, 1, 0.5, 20, {"random": 24_000, "sentences": 26_000}, fresh=True),
    Stage("polish", 1_400, 64, (3e-4, 1e-6), 0, 1, 0.5, 20, {"more random": 24_000, "sentences": 8_000}, fresh=True),
    Stage(
        "widen", 2_800, 64, (3e-4, 1e-6), 0, 1, 0.5, 20, {"yet more random": 24_000, "sentences": 12_000}, fresh=True
    ),
    Stage(
        "run on", 800, 64, (2e-4, 1e-6), 0, 1, 0.5, 20, {"last random": 8_000, "more sentences": 14_000},
        fresh=True, joins=0.2, run_on=0.6, keep=0.3,
    ),
    Stage(
        "change voices", 700, 64, (2e-4, 1e-6), 0, 1, 0.5, 20, {"changing random": 6_000, "changing sentences": 12_000},
        fresh=True, joins=0.5, run_on=0.8, close=True, keep=0.5,
    ),
)  # fmt: skip
