"""Trains the bundled tiny model by the stages of tiny_recipe.py, from synthesizing its speech to the .nemo file.

    python -m scripts.train.train_tiny_model --work build/tiny --out models/parakeet-tdt-tiny

A transducer that is trained from random weights learns the grammar and ignores the sound. So CTC alone on single words
comes first, then phrases, then sentences with CTC and TDT together, then noise.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import random
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numba
import numpy as np
import torch
import torch.distributed

from scripts.train.network import DURATIONS, SIGMA, make_config, train_tokenizer
from scripts.train.tdt_loss import tdt_loss
from scripts.train.tiny_corpus import SAMPLE_RATE, VOCABULARY, to_float
from scripts.train.tiny_data import Clip, Example, Samples, build_corpus, make_batches, make_example
from scripts.train.tiny_recipe import CORPUS, SEED, SIZE, STAGES, TOKENS, Stage

T = TypeVar("T")
WARM_UP_STEPS = 100
REPORT_STEPS, CHECK_STEPS = 100, 500  # between two lines of losses, and between two word error rates


@dataclass(frozen=True)
class Run:
    """One training. work, out: see `train`. stages: the first that runs, and all after it. clips: by part."""

    work: Path
    out: Path
    stages: Sequence[Stage]
    clips: dict[str, list[Clip]]
    development: dict[str, list[Clip]]
    processes: int


def train(work: Path, out: Path, first: str, processes: int) -> None:
    """Train from the stage named `first`, whose predecessor's weights are in `work`; write the model into `out`.

    processes: each of one thread, with a share of every batch. On a CPU that is twice as fast as one process of as many
    threads, since the operations of such a small network are too short to divide.
    """
    stages = STAGES[[stage.name for stage in STAGES].index(first) :]
    parts = [name for name in CORPUS if any(name in stage.parts for stage in stages)]
    training, development = build_corpus(work / "corpus", parts)
    hours = {
        kind: round(sum(len(c.samples) for c in clips) / SAMPLE_RATE / 3600, 1) for kind, clips in training.items()
    }
    print("hours of speech:", hours, flush=True)
    tokenizer = work / "tokenizer"
    if not (tokenizer / "tokenizer.model").exists():
        tokenizer.mkdir(parents=True, exist_ok=True)
        train_tokenizer(tokenizer, [clip.text for clips in training.values() for clip in clips], TOKENS)
    run = Run(work, out, stages, training, development, processes)
    fork = get_context("fork")  # the corpus is shared, not copied
    others = [fork.Process(target=train_share, args=(run, rank)) for rank in range(1, processes)]
    for process in others:
        process.start()
    report = train_share(run, 0)
    for process in others:
        process.join()
    (out / "training.json").write_text(json.dumps({"hours": hours, "from_stage": first, **report}, indent=2) + "\n")


def train_share(run: Run, rank: int) -> dict[str, object]:
    """One process's share of the training. The process of rank 0 also measures, prints and saves; its report."""
    torch.set_num_threads(1)
    numba.set_num_threads(1)  # its threads spin while they wait, and would take the other processes' cores
    meeting = f"file://{run.work.resolve()}/meet-{os.getppid() if rank else os.getpid()}"
    torch.distributed.init_process_group("gloo", meeting, rank=rank, world_size=run.processes)
    torch.manual_seed(SEED)
    np.random.seed(SEED)
    random.seed(SEED + rank)  # SpecAugment
    trainer = Trainer(run, rank)
    for stage in run.stages:
        trainer.train_stage(stage)
    return {} if rank else trainer.save_model()


class Trainer:
    """The network, the optimizer and the random numbers of one process."""

    def __init__(self, run: Run, rank: int) -> None:
        self._run = run
        self._rank = rank
        self._pick = random.Random(SEED + rank)
        self._model = _build_model(run.work / "tokenizer")
        self._head = torch.nn.Linear(SIZE.width, self._model.tokenizer.vocab_size + 1)  # of CTC, for training only
        self._parameters = [*self._model.parameters(), *self._head.parameters()]
        if tuple(run.stages) != STAGES:
            last = STAGES[len(STAGES) - len(run.stages) - 1]
            self._model.load_state_dict(torch.load(run.work / f"after-{last.name}.pt"))
        self._optimizer = _make_optimizer(self._parameters)
        self._began = time.monotonic()
        self._warm_up = 0  # steps of this optimizer

    def train_stage(self, stage: Stage) -> None:
        """All steps of one stage. Its weights go into the work folder."""
        if stage.fresh:
            self._optimizer, self._warm_up = _make_optimizer(self._parameters), 0
        pool = [clip for name, count in stage.parts.items() for clip in self._run.clips[name][:count]]
        epochs = itertools.chain.from_iterable(
            make_batches(pool, stage, stage.seconds / self._run.processes, self._pick) for _ in itertools.count()
        )
        before = {name: value.clone() for name, value in self._model.state_dict().items()} if stage.keep else {}
        recent: list[tuple[float, float]] = []

        def prepare_batch() -> list[Example]:
            return [make_example(clips, stage, self._pick) for clips in next(epochs)]

        for step, batch in enumerate(prefetch(prepare_batch, stage.steps), start=1):
            self._set_rate(stage, step)
            recent.append(self._train_step(stage, batch))
            if self._rank == 0:
                self._report(stage, step, recent[-REPORT_STEPS:])
        if before:
            for name, value in self._model.state_dict().items():
                if value.is_floating_point():
                    value.copy_(torch.lerp(value, before[name], stage.keep))
        if self._rank == 0:
            torch.save(self._model.state_dict(), self._run.work / f"after-{stage.name}.pt")

    def save_model(self) -> dict[str, object]:
        """Write the model and its vocabulary into the output folder; a report on the training."""
        from omegaconf import open_dict

        model, out = self._model, self._run.out
        with open_dict(model.cfg):
            model.cfg.decoder.prednet.dropout = 0.0  # torch warns of dropout in an LSTM of one layer
        result = self._measure_errors()
        print("word error rate:", result, flush=True)
        out.mkdir(parents=True, exist_ok=True)
        for part in (model.encoder, model.decoder, model.joint):
            part.half()  # halves the file; restored into float32, the mel front end stays as it is
        model.cfg.tokenizer.dir = "tokenizer"  # the archive has the files; it need not name this machine's folder
        model.save_to(str(out / "parakeet-tdt-tiny.nemo"))
        (out / "vocabulary.txt").write_text("\n".join(VOCABULARY) + "\n")
        return {
            "seed": SEED,
            "parameters": sum(parameter.numel() for parameter in model.parameters()),
            "seconds": round(time.monotonic() - self._began),
            "processes": self._run.processes,
            "development_word_error_rate": result,
        }

    def _set_rate(self, stage: Stage, step: int) -> None:
        high, low = stage.rate
        self._warm_up += 1
        cosine = low + (high - low) * (1 + np.cos(np.pi * step / stage.steps)) / 2
        for group in self._optimizer.param_groups:
            group["lr"] = cosine * min(1, self._warm_up / WARM_UP_STEPS)

    def _train_step(self, stage: Stage, batch: Sequence[Example]) -> tuple[float, float]:
        """One step of the optimizer. Returns both losses, per token."""
        ctc, transducer = self._compute_losses(stage, batch)
        self._optimizer.zero_grad()
        (stage.ctc * ctc + stage.tdt * transducer).backward()
        average_gradients(self._parameters, self._run.processes)
        torch.nn.utils.clip_grad_norm_(self._parameters, 5.0)
        self._optimizer.step()
        return ctc.item(), transducer.item()

    def _compute_losses(self, stage: Stage, batch: Sequence[Example]) -> tuple[torch.Tensor, torch.Tensor]:
        """The CTC and the TDT loss per token; zero where the stage's weight is zero."""
        model = self._model
        audio, lengths = pad([samples for samples, _ in batch])
        tokens = [torch.tensor(model.tokenizer.text_to_ids(text)) for _, text in batch]
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
                torch.log_softmax(self._head(encoded), -1).transpose(0, 1), targets, frames, labels,
                blank=model.tokenizer.vocab_size, reduction="sum", zero_infinity=True,
            ) / labels.sum()  # fmt: skip
        if stage.tdt:
            predicted, _, _ = model.decoder(targets=targets, target_length=labels)
            logits = model.joint.joint(encoded, predicted.transpose(1, 2))
            losses = tdt_loss(logits, targets, frames, labels, durations=DURATIONS, sigma=SIGMA)
            transducer = losses.sum() / labels.sum()
        return ctc, transducer

    def _report(self, stage: Stage, step: int, recent: Sequence[tuple[float, float]]) -> None:
        if step % REPORT_STEPS == 0:
            means = [round(float(mean), 3) for mean in np.mean(recent, axis=0)]
            elapsed = round(time.monotonic() - self._began)
            print(f"{stage.name} {step}/{stage.steps} ctc {means[0]} tdt {means[1]} {elapsed} s", flush=True)
        if stage.tdt and step % CHECK_STEPS == 0:
            print("word error rate:", self._measure_errors(), flush=True)
            self._model.save_to(str(self._run.work / "checkpoint.nemo"))

    def _measure_errors(self) -> dict[str, float]:
        return {kind: error_rate(self._model, clips) for kind, clips in self._run.development.items()}


def _build_model(tokenizer: Path) -> Any:
    """The network with random weights."""
    import nemo.collections.asr as nemo_asr
    from nemo.utils import logging as nemo_logging
    from omegaconf import OmegaConf

    nemo_logging.setLevel(nemo_logging.ERROR)
    augmentation = dict(_target_="nemo.collections.asr.modules.SpectrogramAugmentation", freq_masks=1, time_masks=2,
                        freq_width=10, time_width=0.04)  # fmt: skip
    config = {**make_config(SIZE, tokenizer), "spec_augment": augmentation, "optim": dict(name="adamw", lr=1e-3)}
    model = nemo_asr.models.EncDecRNNTBPEModel(cfg=OmegaConf.create(config))
    model.encoder.sync_max_audio_length = False  # True exchanges lengths with the other processes, in measuring too
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


def _make_optimizer(parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-3)


def average_gradients(parameters: list[torch.nn.Parameter], processes: int) -> None:
    """Make every process's gradients the mean over all of them."""
    gradients = [parameter.grad for parameter in parameters if parameter.grad is not None]
    flat = torch._utils._flatten_dense_tensors(gradients)
    torch.distributed.all_reduce(flat)
    flat /= processes
    for gradient, mean in zip(gradients, torch._utils._unflatten_dense_tensors(flat, gradients), strict=True):
        gradient.copy_(mean)


def error_rate(model: Any, clips: Sequence[Clip]) -> float:
    """Word error rate over words with their case and punctuation, in percent."""
    import kaldialign

    model.eval()
    errors = words = 0
    with torch.inference_mode():
        for start in range(0, len(clips), 20):
            part = clips[start : start + 20]
            audio, lengths = pad([to_float(clip.samples) for clip in part])
            encoded, frames = model(input_signal=audio, input_signal_length=lengths)
            texts = model.decoding.rnnt_decoder_predictions_tensor(encoded, frames, return_hypotheses=True)
            for clip, hypothesis in zip(part, texts, strict=True):
                errors += kaldialign.edit_distance(clip.text.split(), hypothesis.text.split())["total"]
                words += len(clip.text.split())
    model.train()
    return round(100 * errors / words, 2)


def prefetch(make: Callable[[], T], count: int) -> Iterator[T]:
    """`count` results of `make`, each made in a thread while the caller uses the one before."""
    with ThreadPoolExecutor(1) as thread:
        following = thread.submit(make)
        for _ in range(count):
            ready = following.result()
            following = thread.submit(make)
            yield ready


def pad(arrays: Sequence[Samples]) -> tuple[torch.Tensor, torch.Tensor]:
    """The arrays as one tensor, filled up with zeros, and their lengths."""
    lengths = torch.tensor([len(array) for array in arrays])
    tensors = [torch.from_numpy(array) for array in arrays]
    return torch.nn.utils.rnn.pad_sequence(tensors, batch_first=True), lengths


def main() -> None:
    """Train from the chosen stage on."""
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


if __name__ == "__main__":
    main()
