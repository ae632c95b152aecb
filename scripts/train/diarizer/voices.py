"""Learns how the tiny diarizer compares voices, from conversations and references of its training's voices.

    python -m scripts.train.diarizer.voices [--work build/tiny-diarizer] [--model FILE]

It writes the space of `parakeet_stt.engines.diarizers.voices` into the configuration of the .nemo file, whose network
stays as it is. Who speaks is known here; a reference has another level and another tilt than its speaker's part of the
conversation, which has noise, so that these count for nothing.
"""

from __future__ import annotations

import argparse
import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from omegaconf import OmegaConf
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis  # type: ignore[import-untyped]

from parakeet_stt.engines.diarizers.sortformer import MELS_A_FRAME
from parakeet_stt.engines.diarizers.voices import LEAST_FRAMES, Rows, VoiceSpace, describe
from scripts.train.diarizer.conversations import Mixer, Samples
from scripts.train.diarizer.tiny_voices import load_voices, make_people

SEED = 3
PEOPLE, UTTERANCES, TALKS, TALK_SECONDS = 400, 5, 3000, 28
TILT = 0.35  # as `Mixer.choose_speakers` has it
WIDTH, SHRINKAGE = 24, 0.001
SAME = 0.8  # measured: see docs/decisions/0013-known-speakers.md


def learn(preprocessor: Any, work: Path) -> VoiceSpace:
    """The space in which references are near what their speakers say. preprocessor: of the network."""
    preprocessor.featurizer.dither, preprocessor.featurizer.pad_to = 0.0, 0
    voices = load_voices(work / "voices.npz", make_people(PEOPLE, SEED, held_out=False), UTTERANCES, SEED)
    pick = random.Random(SEED)
    mixer = Mixer(voices, pick)
    described: list[Rows] = []
    people: list[int] = []
    for number in range(TALKS):
        speakers = mixer.choose_speakers(2)
        talk = mixer.mix(TALK_SECONDS, speakers, overlap=0.2, opening=[0, 1])
        frames = _frames(preprocessor, talk.samples)[: len(talk.speaking)]
        speaking = talk.speaking[: len(frames)] > 0.5
        for column in range(2):
            (speaker,) = (one for one in speakers if one.voice == talk.voices[column])
            alone = frames[speaking[:, column] & (speaking.sum(1) == 1)]
            if len(alone) < 2 * LEAST_FRAMES:
                continue
            other = replace(speaker, tilt=pick.uniform(-TILT, TILT))
            for part in (_frames(preprocessor, mixer.make_reference(other)), *np.array_split(alone, 2)):
                described.append(describe(part.reshape(-1, part.shape[-1])))
                people.append(2 * number + column)
    analysis = LinearDiscriminantAnalysis(solver="eigen", shrinkage=SHRINKAGE).fit(described, people)
    mean = np.mean(described, axis=0).astype(np.float32)
    return VoiceSpace(mean, analysis.scalings_[:, :WIDTH].astype(np.float32), SAME)


def write(model: Any, space: VoiceSpace) -> None:
    """Into the model's configuration, which `save_to` writes."""
    OmegaConf.update(model.cfg, "voices", space.to_config(), force_add=True)


def _frames(preprocessor: Any, samples: Samples) -> npt.NDArray[np.float32]:
    """The spectrogram in whole frames of the network, shape (frames, MELS_A_FRAME, mels)."""
    features, _ = preprocessor(input_signal=torch.from_numpy(samples)[None], length=torch.tensor([len(samples)]))
    spectrogram = features[0].T.numpy()
    whole = len(spectrogram) // MELS_A_FRAME * MELS_A_FRAME
    frames: npt.NDArray[np.float32] = spectrogram[:whole].reshape(-1, MELS_A_FRAME, spectrogram.shape[1])
    return frames


def main() -> None:
    """Learn and write."""
    from nemo.collections.asr.models import SortformerEncLabelModel

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/tiny-diarizer"), help="synthesized voices")
    parser.add_argument("--model", type=Path, default=Path("models/sortformer-tiny/sortformer-tiny.nemo"))
    given = parser.parse_args()
    torch.set_num_threads(1)
    given.work.mkdir(parents=True, exist_ok=True)
    model = SortformerEncLabelModel.restore_from(str(given.model), map_location="cpu")
    write(model, learn(model.preprocessor, given.work))
    model.save_to(str(given.model))


if __name__ == "__main__":
    main()
