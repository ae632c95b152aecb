"""Makes a model with the sizes of nvidia/parakeet-tdt-0.6b-v2 and random weights, to measure speed and memory with.

    python -m scripts.bench.random_parakeet [--out build/parakeet-0.6b-random.nemo]

Not for accuracy: the text that it gives is random. The script downloads nothing, takes half a minute, and writes a
.nemo file of 2.5 GB that is served and measured like the real one. Every size is the real model's; only the weights
differ. Greedy decoding of speech gives about as many tokens a second as with the real model, because the search's share
of the time depends on that: see `calibrate`.
"""

from __future__ import annotations

import argparse
import itertools
import random
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from omegaconf import OmegaConf

from scripts.bench.engine import RANDOM_MARK, cut_clips
from scripts.bench.serving import ROOT
from scripts.train.network import NetworkSize, make_config, train_tokenizer

OUT = ROOT / "build" / "parakeet-0.6b-random.nemo"
SEED = 20261123
SIZE = NetworkSize(
    features=128, width=1024, layers=24, heads=8, conv_channels=256, hidden=640, predictor_layers=2, dropout=0.1
)
TOKENS = 1024
TOKENS_PER_SECOND = 3.5  # of fluent English in Parakeet's own tokens, about
CALIBRATION_CLIPS = 12
PARTS = 3  # of a clip
HISTORY = 0.3  # weight of the tokens so far beside the audio: with more, the search falls into a loop
STEPS = 12  # of the bisection


@dataclass(frozen=True, slots=True)
class Emission:
    """The tokens that greedy decoding of the calibration clips gives.

    rate: tokens a second. fewest, most: the same, of the clip with the fewest and of the clip with the most.
    longest_gap: in seconds, without any token. distinct: number of different tokens.
    """

    rate: float
    fewest: float
    most: float
    longest_gap: float
    distinct: int


def make_sentences() -> list[str]:
    """Sentences of made-up words, for the tokenizer."""
    pick = random.Random(SEED)
    syllables = [first + vowel + last for first in "bcdfghjklmnprstvwz" for vowel in "aeiou" for last in "nrstl"]
    words = ["".join(pick.choices(syllables, k=pick.randint(1, 3))) for _ in range(4_000)]
    return [" ".join(pick.choices(words, k=12)).capitalize() + pick.choice(".?") for _ in range(4_000)]


def build(tokenizer: Path) -> Any:
    """The network, with the weights that torch and NeMo initialize it with."""
    import nemo.collections.asr as nemo_asr
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(nemo_logging.ERROR)
    config = OmegaConf.create({**make_config(SIZE, tokenizer), RANDOM_MARK: {"seed": SEED}})
    torch.manual_seed(SEED)
    model = nemo_asr.models.EncDecRNNTBPEModel(cfg=config)
    model.freeze()
    model.eval()
    return model


def calibrate(model: Any, rate: float) -> Emission:
    """Make greedy decoding of the bundled speech give `rate` tokens a second, spread over the clips as in real speech.

    Random weights give nearly the same output for every frame of a clip, and another one for the next clip: all tokens
    would come at once, or none. So three changes are made in the joint network: it ignores what differs between parts
    of clips; what differs between frames gets the size that it has in a trained network; and the biases remove what all
    frames have in common. Then every token, blank and duration is equally likely. One number is left to find, by
    bisection: how much blank is preferred.
    """
    audio = torch.stack([torch.from_numpy(clip.samples) for clip in cut_clips(CALIBRATION_CLIPS)])
    lengths = torch.full((len(audio),), audio.shape[1])
    with torch.inference_mode():
        parts = [model(input_signal=audio[[i]], input_signal_length=lengths[[i]]) for i in range(len(audio))]
        encoded, frames = (torch.cat(list(part)) for part in zip(*parts, strict=True))
        every_token = torch.arange(TOKENS).reshape(-1, 4)
        predicted, _ = model.decoder.predict(every_token, None, add_sos=True)
    joint = model.joint
    last = joint.joint_net[-1]
    with torch.no_grad():
        whole = encoded.shape[2] // PARTS * PARTS
        _ignore_means(
            joint.enc, encoded[:, :, :whole].transpose(1, 2).reshape(PARTS * len(encoded), -1, encoded.shape[1])
        )
        acoustic = _standardize(joint.enc, encoded.transpose(1, 2).flatten(0, 1), 1.0)
        history = _standardize(joint.pred, predicted.flatten(0, 1), HISTORY)
        chosen = torch.randint(len(history), (len(acoustic),), generator=torch.Generator().manual_seed(SEED))
        logits = last(torch.relu(acoustic + history[chosen]))
        last.bias -= logits.mean(0)
        spread = float(logits.std(0).mean())
        last.bias[TOKENS + 1] -= spread  # duration 0 is the rarest of a trained model
        low, high = 0.0, 8.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            last.bias[TOKENS] += middle * spread
            found = measure_emission(model, encoded, frames)
            if found.rate > rate:
                low = middle
            else:
                high = middle
            last.bias[TOKENS] -= middle * spread
        last.bias[TOKENS] += (low + high) / 2 * spread
    return measure_emission(model, encoded, frames)


def _standardize(layer: torch.nn.Linear, inputs: torch.Tensor, size: float) -> torch.Tensor:
    """Change the layer so that each output has mean 0 and standard deviation `size` over `inputs`; those outputs."""
    outputs: torch.Tensor = layer(inputs)
    scale = size / outputs.std(0).clamp_min(1e-8)
    layer.weight.mul_(scale[:, None])
    layer.bias.sub_(outputs.mean(0)).mul_(scale)
    return (outputs - outputs.mean(0)) * scale


def _ignore_means(layer: torch.nn.Linear, groups: torch.Tensor) -> None:
    """Make the layer ignore what differs between the means of groups. groups: shape (groups, members, features)."""
    means = groups.mean(1)
    _, sizes, directions = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    directions = directions[sizes > 1e-5 * sizes[0]]
    layer.weight.sub_(layer.weight @ directions.T @ directions)


def measure_emission(model: Any, encoded: torch.Tensor, frames: torch.Tensor) -> Emission:
    """Decode the encoder's output, and count the tokens."""
    with torch.inference_mode():
        found = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=True)
    seconds = float(frames[0]) * 0.08
    rates = [len(hypothesis.y_sequence) / seconds for hypothesis in found]
    gaps = [gap for hypothesis in found for gap in _gaps(_to_ints(hypothesis.timestamp), int(frames[0]))]
    distinct = {token for hypothesis in found for token in _to_ints(hypothesis.y_sequence)}
    mean = sum(rates) / len(rates)
    return Emission(mean, min(rates), max(rates), max(gaps) * 0.08, len(distinct))


def _to_ints(values: Any) -> list[int]:
    return [int(value) for value in values]


def _gaps(positions: Sequence[int], end: int) -> list[int]:
    ends = [0, *positions, end]
    return [after - before for before, after in itertools.pairwise(ends)]


def main() -> None:
    """Build, calibrate, write."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=OUT, help="where the .nemo file goes")
    out: Path = parser.parse_args().out
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as folder:
        train_tokenizer(Path(folder), make_sentences(), TOKENS)
        model = build(Path(folder))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"{parameters / 1e6:.1f} M parameters, random", flush=True)
        found = calibrate(model, TOKENS_PER_SECOND)
        print(
            f"decoding the bundled speech gives {found.rate:.2f} tokens a second ({found.fewest:.1f} to "
            f"{found.most:.1f} by clip, {found.distinct} different ones), the longest gap {found.longest_gap:.1f} s",
            flush=True,
        )
        partial = out.with_suffix(".partial.nemo")
        model.save_to(str(partial))
        partial.replace(out)
    print(f"{out}: {out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
