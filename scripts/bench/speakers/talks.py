"""Makes the conversations that speakers are measured on, of heard or of held-out voices, and their truth."""

from __future__ import annotations

import io
import random
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import soundfile

from parakeet_stt.audio import Samples
from scripts.train.diarizer.conversations import FRAME_SAMPLES, Conversation, Mixer
from scripts.train.diarizer.tiny_voices import load_voices, make_people
from scripts.train.tiny_corpus import SAMPLE_RATE

FRAME_SECONDS = FRAME_SAMPLES / SAMPLE_RATE
OVERLAP = 0.2  # of turns; about a tenth of the speech
# Other utterances than those of the training, of the same people; and people who were not trained on.
HEARD, HELD_OUT = ("heard", 280, 5, 1), ("held-out", 48, 9, 2)


def make_mixer(work: Path, *, held_out: bool, seed: int) -> Mixer:
    """Conversations of heard or held-out voices; their utterances are synthesized once into `work`."""
    name, count, each, people = HELD_OUT if held_out else HEARD
    work.mkdir(parents=True, exist_ok=True)
    voices = load_voices(
        work / f"test-{name}.npz", make_people(count, people, held_out=held_out), each, seed=people + 100
    )
    return Mixer(voices, random.Random(seed))


def make_talk(mixer: Mixer, seconds: float, speakers: int) -> Conversation:
    """A conversation in which everybody speaks early."""
    return mixer.mix(seconds, mixer.choose_speakers(speakers), overlap=OVERLAP)


def to_wav(samples: Samples) -> bytes:
    """The samples as a file."""
    file = io.BytesIO()
    soundfile.write(file, samples, SAMPLE_RATE, format="WAV", subtype="PCM_16")
    return file.getvalue()


def overlap_share(talk: Conversation) -> float:
    """Share of the frames with speech in which two speak."""
    speaking = talk.speaking.sum(1)
    return float((speaking > 1).sum() / max(1, (speaking > 0).sum()))


def to_annotation(active: npt.NDArray[np.bool_], *, first: int = 0) -> Any:
    """pyannote's annotation of an activity of shape (frames, speakers). first: number of the first frame."""
    from pyannote.core import Annotation, Segment

    annotation = Annotation()
    for speaker in range(active.shape[1]):
        for start, end in _runs(active[:, speaker]):
            span = Segment((first + start) * FRAME_SECONDS, (first + end) * FRAME_SECONDS)
            annotation[span, f"{speaker}-{start}"] = speaker
    return annotation


def said_by(probabilities: npt.NDArray[np.float32]) -> npt.NDArray[np.bool_]:
    """Who speaks in each frame: all who are likelier than not; where only their union is, the likeliest."""
    sure = probabilities > 0.5
    likeliest = probabilities == probabilities.max(1, keepdims=True)
    anybody = (1 - probabilities).prod(1, keepdims=True) < 0.5
    found: npt.NDArray[np.bool_] = sure | (likeliest & anybody)
    return found


@dataclass(frozen=True)
class WordErrors:
    """words: that were recognized. wrong: of them, said by somebody else than the answer says."""

    words: int
    wrong: int


def count_word_errors(words: list[dict[str, Any]], talk: Conversation) -> tuple[WordErrors, dict[str, int]]:
    """Words with a wrong speaker, with the best match of labels to people; and that match.

    A word is right if its speaker speaks at its middle. Where nobody does, the nearest frame in which somebody does
    counts.
    """
    speaking = talk.speaking > 0.5
    anybody = np.flatnonzero(speaking.any(1))
    labels = sorted({word["speaker"] for word in words})
    votes = np.zeros((len(labels), speaking.shape[1]))
    truths = []
    for word in words:
        frame = min(int((word["start"] + word["end"]) / 2 / FRAME_SECONDS), len(speaking) - 1)
        if not speaking[frame].any():
            frame = int(anybody[np.abs(anybody - frame).argmin()])
        truths.append(speaking[frame])
        votes[labels.index(word["speaker"])] += speaking[frame]
    from scipy.optimize import linear_sum_assignment

    rows, columns = linear_sum_assignment(-votes)
    match = {labels[row]: int(column) for row, column in zip(rows, columns, strict=True)}
    wrong = sum(
        1
        for word, truth in zip(words, truths, strict=True)
        if word["speaker"] not in match or not truth[match[word["speaker"]]]
    )
    return WordErrors(len(words), wrong), match


def _runs(active: npt.NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], active, [False]]).astype(np.int8)))
    yield from list(pairwise(edges.tolist()))[::2]
