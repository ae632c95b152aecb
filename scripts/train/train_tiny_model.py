"""Knows how the bundled tiny model is trained: its architecture, its recipe, its seeds. Does not know the service.

    python -m scripts.train.train_tiny_model --work build/tiny --out models/parakeet-tdt-tiny

What was learnt on the way: a transducer trained from nothing learns the grammar and ignores the sound, so CTC alone on
single words comes first, then phrases, then sentences with CTC and TDT together, then noise and dropout.
"""

from __future__ import annotations

import argparse
import functools
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import Pool, get_context
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import numpy.typing as npt
import scipy.fft
import torch
import torch.distributed

from scripts.train import tiny_corpus
from scripts.train.tdt_loss import tdt_loss
from scripts.train.tiny_corpus import SAMPLE_RATE

T = TypeVar("T")
SEED = 20261122
WIDTH, LAYERS, TOKENS, FEATURES = 128, 8, 256, 80
DURATIONS = (0, 1, 2, 3, 4)


@dataclass(frozen=True)
class Part:
    """A part of the training set: `count` clips of one kind, from the seed `first` on; flite: the share it speaks."""

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
DEVELOPMENT: dict[tiny_corpus.Kind, int] = {
    "random": 100,
    "sentences": 100,
}  # of each engine; other seeds, and no sentence shared with training
DEVELOPMENT_SEED = 5_000_000  # measure_accuracy.py draws its test set from further seeds
TEST_SEED, TEST_CLIPS = 9_000_000, 400


@dataclass(frozen=True)
class Clip:
    samples: npt.NDArray[np.int16]
    text: str


@dataclass(frozen=True)
class Stage:
    """One part of the recipe.

    seconds: audio a batch, at most. rate: of learning, first and last, along a cosine. ctc, tdt: weights of the two
    losses. noise: 0 clean to 1 full augmentation. join: the longest example, in seconds, that is made of several clips
    with pauses between. fresh: a new optimizer, so that the stage needs nothing but the weights before it. joins: the
    share of examples that are joined. run_on: the share of those without any pause. close: whether the pauses inside
    their clips are cut too. keep: the share of the weights before the stage in the mean of both that is its result,
    which learns the new and forgets less of the old (Wortsman et al., arXiv:2109.01903).
    """

    name: str
    steps: int
    seconds: float
    rate: tuple[float, float]
    ctc: float
    tdt: float
    noise: float
    join: float
    parts: dict[str, int]  # of the corpus, and how many clips of each
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
        "run on",
        800,
        64,
        (2e-4, 1e-6),
        0,
        1,
        0.5,
        20,
        {"last random": 8_000, "more sentences": 14_000},
        fresh=True,
        joins=0.2,
        run_on=0.6,
        keep=0.3,
    ),
    Stage(
        "change voices",
        700,
        64,
        (2e-4, 1e-6),
        0,
        1,
        0.5,
        20,
        {"changing random": 6_000, "changing sentences": 12_000},
        fresh=True,
        joins=0.5,
        run_on=0.8,
        close=True,
        keep=0.5,
    ),
)


def _synthesize(job: tuple[tiny_corpus.Kind, int, float]) -> Clip:
    kind, seed, flite_share = job
    speech = tiny_corpus.utterance(kind, seed, flite_share=flite_share)
    return Clip(speech.samples, speech.text)


def sentences_of(text: str) -> list[str]:
    return text.replace("?", "?|").replace(".", ".|").replace("| ", "|").strip("|").split("|")


def test_jobs() -> list[tuple[tiny_corpus.Kind, int]]:
    return [(kind, TEST_SEED + index) for kind in ("sentences", "random") for index in range(TEST_CLIPS)]


def build_corpus(folder: Path, parts: Sequence[str]) -> tuple[dict[str, list[Clip]], dict[str, list[Clip]]]:
    """The training and development clips, synthesized once into `folder`."""
    folder.mkdir(parents=True, exist_ok=True)
    with Pool() as pool:
        development = {}
        for kind, count in DEVELOPMENT.items():
            for engine, share in (("espeak", 0.0), ("flite", 1.0)):
                jobs = [(kind, DEVELOPMENT_SEED + index, share) for index in range(count)]
                development[f"{kind} {engine}"] = pool.map(_synthesize, jobs, chunksize=8)
        held_out = {s for clips in development.values() for clip in clips for s in sentences_of(clip.text)}
        held_out |= {s for kind, seed in test_jobs() for s in sentences_of(tiny_corpus.utterance_text(kind, seed))}
        training = {}
        for name in parts:
            part = CORPUS[name]
            path = folder / f"{name}.npz"
            if not path.exists():
                jobs = [(part.kind, part.first + index, part.flite) for index in range(part.count)]
                clips = pool.map(_synthesize, jobs, chunksize=64)
                kept = [clip for clip in clips if len(clip.samples) < 14 * SAMPLE_RATE]
                if part.kind != "words":
                    kept = [clip for clip in kept if not held_out.intersection(sentences_of(clip.text))]
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


def train_tokenizer(folder: Path, texts: Sequence[str]) -> None:
    import sentencepiece

    if (folder / "tokenizer.model").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "text.txt").write_text("\n".join(texts))
    sentencepiece.SentencePieceTrainer.train(
        input=str(folder / "text.txt"), model_prefix=str(folder / "tokenizer"), vocab_size=TOKENS, model_type="bpe",
        character_coverage=1.0, bos_id=-1, eos_id=-1, minloglevel=2,
    )  # fmt: skip
    pieces = [line.split("\t")[0] for line in (folder / "tokenizer.vocab").read_text().splitlines()]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")


def model_config(tokenizer: Path) -> dict[str, object]:
    """The same network as Parakeet-TDT 0.6B, only narrower and shallower, with 80 mel features instead of 128."""
    asr = "nemo.collections.asr.modules"
    loss = dict(fastemit_lambda=0.0, clamp=-1.0, durations=list(DURATIONS), sigma=0.02, omega=0.1)
    return dict(
        sample_rate=SAMPLE_RATE, compute_eval_loss=False, log_prediction=False, rnnt_reduction="mean_volume",
        skip_nan_grad=False,
        model_defaults=dict(enc_hidden=WIDTH, pred_hidden=WIDTH, joint_hidden=WIDTH, tdt_durations=list(DURATIONS),
                            num_tdt_durations=len(DURATIONS)),
        tokenizer=dict(dir=str(tokenizer.resolve()), type="bpe"),
        preprocessor=dict(_target_=f"{asr}.AudioToMelSpectrogramPreprocessor", sample_rate=SAMPLE_RATE,
                          normalize="per_feature", window_size=0.025, window_stride=0.01, window="hann",
                          features=FEATURES, n_fft=512, frame_splicing=1, dither=1e-5, pad_to=0),
        spec_augment=dict(_target_=f"{asr}.SpectrogramAugmentation", freq_masks=1, time_masks=2, freq_width=10,
                          time_width=0.04),
        encoder=dict(_target_=f"{asr}.ConformerEncoder", feat_in=FEATURES, feat_out=-1, n_layers=LAYERS, d_model=WIDTH,
                     use_bias=False, subsampling="dw_striding", subsampling_factor=8, subsampling_conv_channels=32,
                     causal_downsampling=False, ff_expansion_factor=4, self_attention_model="rel_pos", n_heads=4,
                     att_context_size=[-1, -1], xscaling=False, untie_biases=True, pos_emb_max_len=5000,
                     conv_kernel_size=9, conv_norm_type="batch_norm", dropout=0.05, dropout_pre_encoder=0.05,
                     dropout_emb=0.0, dropout_att=0.05),
        decoder=dict(_target_=f"{asr}.RNNTDecoder", normalization_mode=None, random_state_sampling=False,
                     blank_as_pad=True, prednet=dict(pred_hidden=WIDTH, pred_rnn_layers=1, t_max=None, dropout=0.1)),
        joint=dict(_target_=f"{asr}.RNNTJoint", log_softmax=None, preserve_memory=False, fuse_loss_wer=False,
                   fused_batch_size=16, num_extra_outputs=len(DURATIONS),
                   jointnet=dict(joint_hidden=WIDTH, activation="relu", dropout=0.1)),
        decoding=dict(strategy="greedy_batch", model_type="tdt", durations=list(DURATIONS), greedy=dict(max_symbols=10),
                      beam=dict(beam_size=2, return_best_hypothesis=False, score_norm=True)),
        loss=dict(loss_name="tdt", tdt_kwargs=loss),
        optim=dict(name="adamw", lr=1e-3),
    )  # fmt: skip


def augmented(clip: npt.NDArray[np.float32], amount: float, pick: random.Random) -> npt.NDArray[np.float32]:
    """Another speed, band, level, and noise floor, each by chance and by `amount` in [0, 1]; never another text."""
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


def without_silence_around(samples: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The same, from 40 ms before it is louder than a fiftieth of its peak to 40 ms after."""
    loud = np.flatnonzero(np.abs(samples) > np.abs(samples).max() / 50)
    return samples[max(0, loud[0] - SAMPLE_RATE // 25) : loud[-1] + SAMPLE_RATE // 25]


def joined(clips: Sequence[Clip], stage: Stage, pick: random.Random) -> tuple[npt.NDArray[np.float32], str]:
    """One training example from one or more clips, with silence around and pauses between."""
    parts: list[npt.NDArray[np.float32]] = []
    has_pauses = len(clips) < 2 or pick.random() >= stage.run_on
    for clip in clips:
        lead = pick.randint(0, int(0.5 * SAMPLE_RATE * stage.noise)) if not parts else pick.randint(800, 16_000)
        samples = clip.samples.astype(np.float32) / np.float32(32768)
        if not has_pauses:
            samples, lead = without_silence_around(samples), lead if not parts else pick.randint(0, 800)
            samples = tiny_corpus.without_pauses(samples, pick.randint(4, 12)) if stage.close else samples
        parts += [np.zeros(lead, np.float32), samples]
    parts.append(np.zeros(pick.randint(0, int(0.5 * SAMPLE_RATE * stage.noise)), np.float32))
    return augmented(np.concatenate(parts), stage.noise, pick), " ".join(clip.text for clip in clips)


def batches(pool: Sequence[Clip], stage: Stage, most: float, pick: random.Random) -> Iterator[list[list[Clip]]]:
    """One pass over `pool`, in batches of similar length and `most` seconds; some of the clips joined with others."""
    order = list(pool)
    pick.shuffle(order)
    examples: list[list[Clip]] = []
    while order:
        example, length = [order.pop()], 0.0
        length = len(example[0].samples) / SAMPLE_RATE
        if pick.random() < stage.joins:
            target = pick.uniform(0, stage.join)
            while order and length + len(order[-1].samples) / SAMPLE_RATE + 1 < target:
                example.append(order.pop())
                length += len(example[-1].samples) / SAMPLE_RATE + 0.5
        examples.append(example)

    def seconds(example: list[Clip]) -> float:
        return sum(len(clip.samples) for clip in example) / SAMPLE_RATE + 0.5 * len(example)

    examples.sort(key=lambda example: seconds(example) + pick.uniform(-0.4, 0.4))
    made: list[list[list[Clip]]] = [[]]
    for example in examples:
        longest = max(map(seconds, [*made[-1], example]))
        if made[-1] and longest * (len(made[-1]) + 1) > most:
            made.append([])
        made[-1].append(example)
    pick.shuffle(made)
    yield from made


def next_batch(
    epochs: Iterator[list[list[Clip]]], stage: Stage, pick: random.Random
) -> list[tuple[npt.NDArray[np.float32], str]]:
    return [joined(example, stage, pick) for example in next(epochs)]


def ahead(make: Callable[[], T], count: int) -> Iterator[T]:
    """`count` results of `make`, each made in a thread while the one before is used."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(make)
        for _ in range(count):
            ready = following.result()
            following = thread.submit(make)
            yield ready


def padded(arrays: Sequence[npt.NDArray[np.float32]]) -> tuple[torch.Tensor, torch.Tensor]:
    lengths = torch.tensor([len(array) for array in arrays])
    tensors = [torch.from_numpy(array) for array in arrays]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths


def error_rate(model: Any, clips: Sequence[Clip]) -> float:
    """Word error rate over cased, punctuated words, in percent."""
    import kaldialign

    model.eval()
    errors = words = 0
    with torch.inference_mode():
        for start in range(0, len(clips), 20):
            part = clips[start : start + 20]
            audio, lengths = padded([clip.samples.astype(np.float32) / np.float32(32768) for clip in part])
            encoded, frames = model(input_signal=audio, input_signal_length=lengths)
            texts = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=True)
            for clip, hypothesis in zip(part, texts, strict=True):
                errors += kaldialign.edit_distance(clip.text.split(), hypothesis.text.split())["total"]
                words += len(clip.text.split())
    model.train()
    return round(100 * errors / words, 2)


def new_optimizer(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-3)


def average_gradients(parameters: list[torch.nn.Parameter], processes: int) -> None:
    """Make every process's gradients the mean over all of them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch._utils._flatten_dense_tensors(gradients)
    torch.distributed.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(mean)


def train(work: Path, out: Path, first: str, processes: int) -> None:
    """Train from the stage named `first`, whose predecessor's weights are in `work`; write the model into `out`.

    processes: each of one thread, with a share of every batch: on a CPU twice as fast as one process of as many
    threads, since the operations of so small a network are too short to divide.
    """
    stages = STAGES[[stage.name for stage in STAGES].index(first) :]
    parts = [name for name in CORPUS if any(name in stage.parts for stage in stages)]
    training, development = build_corpus(work / "corpus", parts)
    hours = {
        kind: round(sum(len(c.samples) for c in clips) / SAMPLE_RATE / 3600, 1) for kind, clips in training.items()
    }
    print("hours of speech:", hours, flush=True)
    train_tokenizer(work / "tokenizer", [clip.text for clips in training.values() for clip in clips])
    fork = get_context("fork")  # the corpus is shared, not copied
    others = [
        fork.Process(target=train_share, args=(rank, processes, work, out, stages, training, development))
        for rank in range(1, processes)
    ]
    for process in others:
        process.start()
    report = train_share(0, processes, work, out, stages, training, development)
    for process in others:
        process.join()
    (out / "training.json").write_text(json.dumps({"hours": hours, "from_stage": first, **report}, indent=2) + "\n")


def train_share(
    rank: int,
    processes: int,
    work: Path,
    out: Path,
    stages: Sequence[Stage],
    training: dict[str, list[Clip]],
    development: dict[str, list[Clip]],
) -> dict[str, object]:
    """One process's part; that of rank 0 also measures, tells and saves."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)  # its threads spin while they wait, and would take the other processes' cores
    meeting = f"file://{work.resolve()}/meet-{os.getppid() if rank else os.getpid()}"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=processes)
    import nemo.collections.asr as nemo_asr
    from nemo.utils import logging as nemo_logging
    from omegaconf import OmegaConf, open_dict

    nemo_logging.setLevel(nemo_logging.ERROR)

    torch.manual_seed(SEED)
    np.random.seed(SEED)
    random.seed(SEED + rank)  # SpecAugment
    pick = random.Random(SEED + rank)
    model = nemo_asr.models.EncDecRNNTBPEModel(cfg=OmegaConf.create(model_config(work / "tokenizer")))
    model.encoder.sync_max_audio_length = False  # else it talks to the other processes, also when one alone measures
    blank = model.tokenizer.vocab_size
    head = torch.nn.Linear(WIDTH, blank + 1)
    parameters = [*model.parameters(), *head.parameters()]
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    if tuple(stages) != STAGES:
        last = STAGES[len(STAGES) - len(stages) - 1]
        model.load_state_dict(torch.load(work / f"after-{last.name}.pt"))
    optimizer = new_optimizer(parameters)
    started, warm_up = time.monotonic(), 0
    for stage in stages:
        if stage.fresh:
            optimizer, warm_up = new_optimizer(parameters), 0
        pool = [clip for name, count in stage.parts.items() for clip in training[name][:count]]
        epochs = itertools.chain.from_iterable(
            batches(pool, stage, stage.seconds / processes, pick) for _ in itertools.count()
        )
        before = {name: value.clone() for name, value in model.state_dict().items()} if stage.keep else {}
        recent: list[tuple[float, float]] = []
        prepared = ahead(functools.partial(next_batch, epochs, stage, pick), stage.steps)
        for step, made in enumerate(prepared, start=1):
            high, low = stage.rate
            warm_up += 1
            cosine = low + (high - low) * (1 + np.cos(np.pi * step / stage.steps)) / 2
            for group in optimizer.param_groups:
                group["lr"] = cosine * min(1, warm_up / 100)
            audio, lengths = padded([samples for samples, _ in made])
            tokens = [torch.tensor(model.tokenizer.text_to_ids(text)) for _, text in made]
            labels = torch.tensor([len(ids) for ids in tokens])
            targets = torch.nn.utils.rnn.pad_sequence(tokens, batch_first=True)
            with torch.no_grad():
                features, frames = model.preprocessor(input_signal=audio, length=lengths)
                if stage.noise == 1:
                    features = model.spec_augmentation(input_spec=features, length=frames)
            encoded, frames = model.encoder(audio_signal=features, length=frames)
            encoded = encoded.transpose(1, 2)
            ctc = transducer = torch.zeros(())
            if stage.ctc:
                ctc = torch.nn.functional.ctc_loss(
                    torch.log_softmax(head(encoded), -1).transpose(0, 1), targets, frames, labels, blank=blank,
                    reduction="sum", zero_infinity=True,
                ) / labels.sum()  # fmt: skip
            if stage.tdt:
                predicted, _, _ = model.decoder(targets=targets, target_length=labels)
                logits = model.joint.joint(encoded, predicted.transpose(1, 2))
                losses = tdt_loss(logits, targets, frames, labels, durations=DURATIONS, sigma=0.02)
                transducer = losses.sum() / labels.sum()
            optimizer.zero_grad()
            (stage.ctc * ctc + stage.tdt * transducer).backward()
            average_gradients(parameters, processes)
            torch.nn.utils.clip_grad_norm_(parameters, 5.0)
            optimizer.step()
            recent.append((ctc.item(), transducer.item()))
            if rank == 0 and step % 100 == 0:
                means = [round(float(mean), 3) for mean in np.mean(recent[-100:], axis=0)]
                elapsed = round(time.monotonic() - started)
                print(f"{stage.name} {step}/{stage.steps} ctc {means[0]} tdt {means[1]} {elapsed} s", flush=True)
            if rank == 0 and stage.tdt and step % 500 == 0:
                print("word error rate:", {k: error_rate(model, c) for k, c in development.items()}, flush=True)
                model.save_to(str(work / "checkpoint.nemo"))
        if before:
            after = model.state_dict()
            for name, value in after.items():
                if value.is_floating_point():
                    value.copy_(torch.lerp(value, before[name], stage.keep))
        if rank == 0:
            torch.save(model.state_dict(), work / f"after-{stage.name}.pt")
    if rank:
        return {}
    with open_dict(model.cfg):
        model.cfg.decoder.prednet.dropout = 0.0  # torch warns of dropout in an LSTM of one layer
    result = {kind: error_rate(model, clips) for kind, clips in development.items()}
    print("word error rate:", result, flush=True)
    out.mkdir(parents=True, exist_ok=True)
    for part in (model.encoder, model.decoder, model.joint):
        part.half()  # halves the file; restored into float32, the mel front end untouched
    model.save_to(str(out / "parakeet-tdt-tiny.nemo"))
    (out / "vocabulary.txt").write_text("\n".join(tiny_corpus.VOCABULARY) + "\n")
    return {
        "seed": SEED,
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "seconds": round(time.monotonic() - started),
        "processes": processes,
        "development_word_error_rate": result,
    }


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/tiny"), help="corpus, tokenizer and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("models/parakeet-tdt-tiny"), help="where the model goes")
    parser.add_argument(
        "--from",
        dest="first",
        default="words",
        choices=["words", *(s.name for s in STAGES if s.fresh)],
        help="stage to begin at",
    )
    parser.add_argument("--processes", type=int, default=os.cpu_count())
    arguments = parser.parse_args()
    train(arguments.work, arguments.out, arguments.first, arguments.processes)
