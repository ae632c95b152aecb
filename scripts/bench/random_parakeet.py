"""Knows the network of nvidia/parakeet-tdt-0.6b-v2, filled with random numbers. Does not know any speech.

    .venv/bin/python -m scripts.bench.random_parakeet [--out build/parakeet-0.6b-random.nemo]

For speed and memory only, never for accuracy: what it "hears" is noise. It needs no network, takes half a minute, and
writes a .nemo file of 2.5 GB that is served and measured like the real one. Every size is the real model's; only the
numbers in the weights differ. Greedy decoding of speech finds about as many tokens a second as the real model does,
which is what the search's share of the time depends on: see `calibrate`.
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

import sentencepiece
import torch
from omegaconf import OmegaConf

from scripts.bench.engine import RANDOM_MARK, clips

ROOT = Path(__file__).parents[2]
OUT = ROOT / "build" / "parakeet-0.6b-random.nemo"
SEED = 20261123
FEATURES, WIDTH, LAYERS, HEADS, CONV_CHANNELS = 128, 1024, 24, 8, 256
HIDDEN, TOKENS = 640, 1024
DURATIONS = (0, 1, 2, 3, 4)
TOKENS_PER_SECOND = 3.5  # of fluent English in Parakeet's own tokens, about
CALIBRATION_CLIPS = 12
PARTS = 3  # of a clip
HISTORY = 0.3  # how much the tokens so far say against what is heard: little, or the search falls into a loop
STEPS = 12  # of the bisection


@dataclass(frozen=True, slots=True)
class Emission:
    """What greedy decoding of the calibration clips finds.

    rate: tokens a second. fewest, most: tokens a second of the clip with the fewest and of that with the most.
    longest_gap: seconds without any token. distinct: different tokens used.
    """

    rate: float
    fewest: float
    most: float
    longest_gap: float
    distinct: int


def model_config(tokenizer: Path) -> dict[str, object]:
    """The published architecture, as NeMo's configuration."""
    asr = "nemo.collections.asr.modules"
    loss = dict(fastemit_lambda=0.0, clamp=-1.0, durations=list(DURATIONS), sigma=0.02, omega=0.1)
    return dict(
        sample_rate=16_000, compute_eval_loss=False, log_prediction=False, rnnt_reduction="mean_volume",
        skip_nan_grad=False,
        model_defaults=dict(enc_hidden=WIDTH, pred_hidden=HIDDEN, joint_hidden=HIDDEN, tdt_durations=list(DURATIONS),
                            num_tdt_durations=len(DURATIONS)),
        tokenizer=dict(dir=str(tokenizer.resolve()), type="bpe"),
        preprocessor=dict(_target_=f"{asr}.AudioToMelSpectrogramPreprocessor", sample_rate=16_000,
                          normalize="per_feature", window_size=0.025, window_stride=0.01, window="hann",
                          features=FEATURES, n_fft=512, frame_splicing=1, dither=1e-5, pad_to=0),
        encoder=dict(_target_=f"{asr}.ConformerEncoder", feat_in=FEATURES, feat_out=-1, n_layers=LAYERS, d_model=WIDTH,
                     use_bias=False, subsampling="dw_striding", subsampling_factor=8,
                     subsampling_conv_channels=CONV_CHANNELS, causal_downsampling=False, ff_expansion_factor=4,
                     self_attention_model="rel_pos", n_heads=HEADS, att_context_size=[-1, -1], xscaling=False,
                     untie_biases=True, pos_emb_max_len=5000, conv_kernel_size=9, conv_norm_type="batch_norm",
                     dropout=0.1, dropout_pre_encoder=0.1, dropout_emb=0.0, dropout_att=0.1),
        decoder=dict(_target_=f"{asr}.RNNTDecoder", normalization_mode=None, random_state_sampling=False,
                     blank_as_pad=True, prednet=dict(pred_hidden=HIDDEN, pred_rnn_layers=2, t_max=None, dropout=0.2)),
        joint=dict(_target_=f"{asr}.RNNTJoint", log_softmax=None, preserve_memory=False, fuse_loss_wer=False,
                   fused_batch_size=16, num_extra_outputs=len(DURATIONS),
                   jointnet=dict(joint_hidden=HIDDEN, activation="relu", dropout=0.2)),
        decoding=dict(strategy="greedy_batch", model_type="tdt", durations=list(DURATIONS), greedy=dict(max_symbols=10),
                      beam=dict(beam_size=2, return_best_hypothesis=False, score_norm=True)),
        loss=dict(loss_name="tdt", tdt_kwargs=loss),
    )  # fmt: skip


def train_tokenizer(folder: Path) -> None:
    """1024 pieces, of sentences of made-up words."""
    pick = random.Random(SEED)
    syllables = [first + vowel + last for first in "bcdfghjklmnprstvwz" for vowel in "aeiou" for last in "nrstl"]
    words = ["".join(pick.choices(syllables, k=pick.randint(1, 3))) for _ in range(4_000)]
    lines = [" ".join(pick.choices(words, k=12)).capitalize() + pick.choice(".?") for _ in range(4_000)]
    (folder / "text.txt").write_text("\n".join(lines))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=TOKENS, model_type="bpe",
        character_coverage=1.0, bos_id=-1, eos_id=-1, minloglevel=2,
    )  # fmt: skip
    pieces = [line.split("\t")[0] for line in (folder / "tokenizer.vocab").read_text().splitlines()]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


def build(tokenizer: Path) -> Any:
    """The network, with the numbers that torch and NeMo start training from."""
    import nemo.collections.asr as nemo_asr
    from nemo.utils import logging as nemo_logging

    nemo_logging.setLevel(nemo_logging.ERROR)
    config = OmegaConf.create({**model_config(tokenizer), RANDOM_MARK: {"seed": SEED}})
    torch.manual_seed(SEED)
    model = nemo_asr.models.EncDecRNNTBPEModel(cfg=config)
    model.freeze()
    model.eval()
    return model


def calibrate(model: Any, rate: float) -> Emission:
    """Make greedy decoding of the bundled speech find `rate` tokens a second, here and there as speech has them.

    Random weights give nearly the same output for every frame of a clip, and another one for the next clip: all tokens
    would come in one lump, or never. So the joint network is made blind to what differs between parts of clips, gets
    what differs between frames at the size that a trained one has, and loses in its biases what all have in common.
    Then every token, blank and duration is as likely as any other, and one number is left to find: how much blank is
    preferred.
    """
    sound = torch.from_numpy(clips(CALIBRATION_CLIPS)[0].samples)
    audio = torch.stack([torch.from_numpy(clip.samples) for clip in clips(CALIBRATION_CLIPS)])
    lengths = torch.full((len(audio),), len(sound))
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
        heard = _standardize(joint.enc, encoded.transpose(1, 2).flatten(0, 1), 1.0)
        said = _standardize(joint.pred, predicted.flatten(0, 1), HISTORY)
        some = said[torch.randint(len(said), (len(heard),), generator=torch.Generator().manual_seed(SEED))]
        logits = last(torch.relu(heard + some))
        last.bias -= logits.mean(0)
        spread = float(logits.std(0).mean())
        last.bias[TOKENS + 1] -= spread  # duration 0 is the rarest of a trained model
        low, high = 0.0, 8.0
        for _ in range(STEPS):
            middle = (low + high) / 2
            last.bias[TOKENS] += middle * spread
            found = emission(model, encoded, frames)
            if found.rate > rate:
                low = middle
            else:
                high = middle
            last.bias[TOKENS] -= middle * spread
        last.bias[TOKENS] += (low + high) / 2 * spread
    return emission(model, encoded, frames)


def _standardize(layer: torch.nn.Linear, inputs: torch.Tensor, size: float) -> torch.Tensor:
    """The layer's outputs for `inputs`, after making each of them of mean 0 and of standard deviation `size`."""
    outputs: torch.Tensor = layer(inputs)
    scale = size / outputs.std(0).clamp_min(1e-8)
    layer.weight.mul_(scale[:, None])
    layer.bias.sub_(outputs.mean(0)).mul_(scale)
    return (outputs - outputs.mean(0)) * scale


def _ignore_means(layer: torch.nn.Linear, groups: torch.Tensor) -> None:
    """Make the layer blind to what differs between the means of groups; `groups` is (groups, members, features)."""
    means = groups.mean(1)
    _, sizes, directions = torch.linalg.svd(means - means.mean(0), full_matrices=False)
    directions = directions[sizes > 1e-5 * sizes[0]]
    layer.weight.sub_(layer.weight @ directions.T @ directions)


def emission(model: Any, encoded: torch.Tensor, frames: torch.Tensor) -> Emission:
    with torch.inference_mode():
        found = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=True)
    seconds = float(frames[0]) * 0.08
    rates = [len(hypothesis.y_sequence) / seconds for hypothesis in found]
    gaps = [gap for hypothesis in found for gap in _gaps(_numbers(hypothesis.timestamp), int(frames[0]))]
    distinct = {token for hypothesis in found for token in _numbers(hypothesis.y_sequence)}
    mean = sum(rates) / len(rates)
    return Emission(mean, min(rates), max(rates), max(gaps) * 0.08, len(distinct))


def _numbers(values: Any) -> list[int]:
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
        train_tokenizer(Path(folder))
        model = build(Path(folder))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        print(f"{parameters / 1e6:.1f} M parameters, random", flush=True)
        found = calibrate(model, TOKENS_PER_SECOND)
        print(
            f"decoding the bundled speech finds {found.rate:.2f} tokens a second ({found.fewest:.1f} to "
            f"{found.most:.1f} by clip, {found.distinct} different ones), never none for {found.longest_gap:.1f} s",
            flush=True,
        )
        partial = out.with_suffix(".partial.nemo")
        model.save_to(str(partial))
        partial.replace(out)
    print(f"{out}: {out.stat().st_size / 1e9:.2f} GB")


if __name__ == "__main__":
    main()
