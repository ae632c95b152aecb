"""Trains the bundled tiny diarizer, from synthesizing its voices to the .nemo file.

    python -m scripts.train.diarizer.train --work build/tiny-diarizer --out models/sortformer-tiny

It needs no more than one thread: two hours of utterances are mixed to conversations while it trains, and no two steps
see the same ones. A step's data depend on its number only, so a training that was stopped goes on with `--resume`.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch

from scripts.train.diarizer.conversations import COLUMNS, Conversation, Mixer
from scripts.train.diarizer.sortformer import TINY, build
from scripts.train.diarizer.tiny_voices import Utterance, load_voices, make_people
from scripts.train.diarizer.voices import learn, write
from scripts.train.train_tiny_model import prefetch

SEED = 1
WARM_UP_STEPS, REPORT_STEPS, CHECKPOINT_STEPS = 60, 10, 20
VOICE_FRAMES = 12  # the fewest that a mean is of
REFERENCES_FROM = 16  # seconds: a shorter conversation has no references before it
HEARD_PEOPLE, UTTERANCES = 560, 7


class Stage(NamedTuple):
    """A part of the training. seconds: of audio in a batch. shares: of conversations with 1, 2, 3 and 4 speakers.

    lengths: of conversations, in seconds. rate: of learning, the highest and the last. streaming: the network runs with
    its speaker cache. order: share of the loss that wants speakers in order of arrival, at the begin and at the end;
    the rest does not care for the order. contrast: weight of the loss that tells voices apart.
    """

    name: str
    steps: int
    seconds: float
    shares: tuple[float, float, float, float]
    lengths: tuple[float, ...]
    rate: tuple[float, float]
    streaming: bool
    order: tuple[float, float]
    contrast: tuple[float, float]


STAGES = (
    Stage("short", 200, 96, (1, 3, 1, 0), (8,), (1e-3, 1e-3), False, (0.5, 0.55), (0.5, 0.5)),
    Stage("longer", 200, 96, (1, 4, 2, 1), (8, 12), (1e-3, 8e-4), False, (0.55, 0.65), (0.5, 0.3)),
    Stage("pairs", 300, 64, (1, 6, 1, 0), (8, 12), (1.5e-3, 1e-3), False, (0.5, 0.6), (0.5, 0.4)),
    Stage("more pairs", 100, 64, (1, 6, 2, 1), (8, 12), (1.3e-3, 1.1e-3), False, (0.6, 0.7), (0.4, 0.3)),
    Stage("long", 110, 64, (1, 7, 1, 0), (12, 16), (1.1e-3, 2e-5), False, (0.7, 0.8), (0.2, 0.1)),
    Stage("people", 300, 96, (1, 4, 3, 2), (8, 12, 16), (1e-3, 7e-4), False, (0.55, 0.65), (0.5, 0.3)),
    Stage("minutes", 80, 96, (1, 4, 3, 2), (16, 24, 48), (7e-4, 4e-4), False, (0.65, 0.75), (0.3, 0.2)),
    Stage("cache", 40, 120, (1, 4, 3, 2), (40, 60), (4e-4, 1e-5), True, (0.75, 0.8), (0.3, 0.3)),
    Stage("more people", 400, 96, (1, 4, 3, 2), (8, 12, 16), (1e-3, 7e-4), False, (0.6, 0.7), (0.5, 0.3)),
    Stage("more minutes", 120, 96, (1, 4, 3, 2), (16, 24, 48), (7e-4, 3e-4), False, (0.7, 0.8), (0.3, 0.2)),
    Stage("more cache", 50, 120, (1, 4, 3, 2), (40, 60), (3e-4, 1e-5), True, (0.75, 0.8), (0.3, 0.3)),
    Stage("most people", 500, 96, (1, 4, 3, 2), (8, 16, 24), (1e-3, 6e-4), False, (0.6, 0.7), (0.5, 0.3)),
    Stage("most minutes", 150, 96, (1, 4, 3, 2), (16, 24, 48), (6e-4, 3e-4), False, (0.7, 0.8), (0.3, 0.2)),
    Stage("most cache", 60, 120, (1, 4, 3, 2), (40, 60), (3e-4, 1e-5), True, (0.75, 0.8), (0.3, 0.3)),
)


class Batch(NamedTuple):
    """Conversations of one length. audio: (rows, samples); speaking: (rows, frames, 4); voices: (rows, 4), -1: none."""

    audio: torch.Tensor
    speaking: torch.Tensor
    voices: torch.Tensor


def make_batch(voices: list[list[Utterance]], stage: Stage, step: int) -> Batch:
    """The batch of that step of that stage."""
    pick = random.Random(f"{SEED}-{stage.name}-{step}")
    mixer, length = Mixer(voices, pick), pick.choice(stage.lengths)
    rows = []
    for count in pick.choices((1, 2, 3, 4), stage.shares, k=max(2, int(stage.seconds / length))):
        rows.append(_make_conversation(mixer, pick, length, count))
    return Batch(
        torch.from_numpy(np.stack([row.samples for row in rows])),
        torch.from_numpy(np.stack([row.speaking for row in rows])),
        torch.tensor([row.voices for row in rows]),
    )


def _make_conversation(mixer: Mixer, pick: random.Random, length: float, count: int) -> Conversation:
    """A conversation of `count` speakers. Some begin with what a speaker cache looks like, or with references."""
    opening: list[int] = []
    absent: list[int] = []
    begin = pick.random()
    if begin < 0.25:  # every speaker in turn, twice
        opening = pick.sample(range(count), count) * 2
    elif begin < 0.5 and length >= REFERENCES_FROM:
        known = pick.sample(range(count), min(count, pick.randint(1, 2)))
        if count < COLUMNS and pick.random() < 0.5:  # a reference of somebody who does not speak
            absent = [count]
            known.insert(pick.randint(0, len(known)), count)
            del known[2:]
        opening = [number for number in known for _ in range(pick.randint(1, 3))]
        absent = [number for number in absent if number in known]
    speakers = mixer.choose_speakers(max([count, *(number + 1 for number in absent)]))
    return mixer.mix(length, speakers, overlap=pick.uniform(0.1, 0.6), opening=opening, absent=absent)


def set_streaming(model: Any, chunk: int, right: int, fifo: int, update: int, cache: int) -> None:
    """Lengths of the streaming form, in frames."""
    modules = model.sortformer_modules
    modules.chunk_len, modules.chunk_right_context, modules.fifo_len = chunk, right, fifo
    modules.spkcache_update_period, modules.spkcache_len = update, cache


def compute_probabilities(model: Any, audio: torch.Tensor, *, streaming: bool) -> torch.Tensor:
    """Probabilities of every speaker in every frame, shape (rows, frames, 4).

    NeMo's own forward() divides the whole batch by its loudest sample first.
    """
    lengths = torch.full((len(audio),), audio.shape[1])
    features, sizes = model.preprocessor(input_signal=audio, length=lengths)
    features = features[:, :, : int(sizes.max())]
    if streaming:
        return model.forward_streaming(features, sizes)  # type: ignore[no-any-return]
    return model.forward_infer(*model.frontend_encoder(features, sizes))  # type: ignore[no-any-return]


def contrast_loss(vectors: torch.Tensor, batch: Batch, pick: random.Random) -> torch.Tensor:
    """Contrast over single frames with one speaker, in the whole batch. vectors: (rows, frames, width)."""
    chosen = []
    for row in batch.speaking:
        alone = torch.nonzero(row.sum(1) == 1).flatten().tolist()
        chosen.append(pick.sample(alone, min(20, len(alone))))
    picked = torch.cat([vectors[row, frames] for row, frames in enumerate(chosen)])
    labels = torch.cat([batch.voices[row, batch.speaking[row, frames].argmax(1)] for row, frames in enumerate(chosen)])
    return _contrast(picked, labels)


def voice_loss(vectors: torch.Tensor, batch: Batch) -> torch.Tensor:
    """Contrast over means: of each speaker's first frames alone and of their last ones. vectors: (rows, frames, width).

    So that the mean of a reference is like the mean of what its speaker says later.
    """
    means, labels = [], []
    for row, speaking in enumerate(batch.speaking[:, : vectors.shape[1]]):
        for column in range(COLUMNS):
            alone = torch.nonzero((speaking.sum(1) == 1) & (speaking[:, column] == 1)).flatten()
            if len(alone) >= 2 * VOICE_FRAMES:
                means += [half.mean(0) for half in vectors[row, alone].tensor_split(2)]
                labels += [batch.voices[row, column]] * 2
    return _contrast(torch.stack(means), torch.stack(labels)) if labels else vectors.sum() * 0


def _contrast(vectors: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Supervised contrast (Khosla et al., arXiv 2004.11362), temperature 0.1.

    Vectors of one label attract each other and repel all others. vectors: (count, width); labels: (count,).
    """
    vectors = torch.nn.functional.normalize(vectors, dim=1)
    itself = torch.eye(len(labels), dtype=torch.bool)
    same = (labels[:, None] == labels[None]) & ~itself
    chances = (vectors @ vectors.T / 0.1).masked_fill(itself, -1e4).log_softmax(1)
    return -((chances * same).sum(1) / same.sum(1).clamp(min=1))[same.any(1)].mean()


class Trainer:
    """The network, its optimizer, and what is trained with it and thrown away."""

    def __init__(self, work: Path, voices: list[list[Utterance]]) -> None:
        self._work = work
        self._voices = voices
        torch.manual_seed(SEED)
        self.model = build(TINY)
        self._head = torch.nn.Linear(TINY.width, 64)
        # On the last layer the contrast would hurt the order of speakers.
        self._middle: list[torch.Tensor] = []
        self.model.encoder.layers[1].register_forward_hook(lambda _module, _given, found: self._middle.append(found))
        self._parameters = [*self.model.parameters(), *self._head.parameters()]
        self._optimizer = torch.optim.AdamW(self._parameters, lr=1e-3, betas=(0.9, 0.98), weight_decay=1e-3)
        self._steps = 0  # done, of all stages
        self._began = time.monotonic()

    def resume(self) -> None:
        """Go on from the last checkpoint."""
        saved = torch.load(self._work / "checkpoint.pt")
        self.model.load_state_dict(saved["model"])
        self._head.load_state_dict(saved["head"])
        self._optimizer.load_state_dict(saved["optimizer"])
        self._steps = saved["steps"]

    def train(self) -> dict[str, object]:
        """Every stage, from the checkpoint on; a report."""
        before = 0
        for stage in STAGES:
            first = min(max(0, self._steps - before), stage.steps)
            before += stage.steps
            if first < stage.steps:
                self._train_stage(stage, first)
        return {
            "seed": SEED,
            "parameters": sum(parameter.numel() for parameter in self.model.parameters()),
            "steps": self._steps,
        }

    def _train_stage(self, stage: Stage, first: int) -> None:
        numbers = iter(range(first, stage.steps))
        recent: list[tuple[float, ...]] = []
        for step, batch in enumerate(
            prefetch(lambda: make_batch(self._voices, stage, next(numbers)), stage.steps - first), start=first
        ):
            recent.append(self._train_step(stage, step, batch))
            self._steps += 1
            if self._steps % REPORT_STEPS == 0:
                order, free, same = np.mean(recent[-REPORT_STEPS:], axis=0).round(3)
                elapsed = round(time.monotonic() - self._began)
                print(f"{stage.name} {step + 1}/{stage.steps} order {order} free {free} contrast {same} {elapsed} s",
                      flush=True)  # fmt: skip
            if self._steps % CHECKPOINT_STEPS == 0 or step + 1 == stage.steps:
                self._save_checkpoint()

    def _train_step(self, stage: Stage, step: int, batch: Batch) -> tuple[float, ...]:
        """One step of the optimizer. Returns its losses: with the order of arrival, without an order, contrast."""
        from nemo.collections.asr.parts.utils.asr_multispeaker_utils import get_ats_targets, get_pil_targets

        pick, done = random.Random(f"{SEED}-{stage.name}-{step}-step"), step / stage.steps
        for group in self._optimizer.param_groups:
            high, low = stage.rate
            group["lr"] = (low + (high - low) * (1 + math.cos(math.pi * done)) / 2) * min(
                1.0, (self._steps + 1) / WARM_UP_STEPS
            )
        set_streaming(self.model, pick.choice((124, 248, 340)), pick.choice((7, 40)), pick.choice((0, 40)), 300,
                      188)  # fmt: skip
        self._middle.clear()
        self.model.train()
        found = compute_probabilities(self.model, batch.audio, streaming=stage.streaming)
        sizes = torch.full((len(found),), found.shape[1])
        order, free = (
            self.model.loss(
                probs=found,
                labels=sort(batch.speaking.clone(), found, self.model.speaker_permutations),
                target_lens=sizes,
            )
            for sort in (get_ats_targets, get_pil_targets)
        )
        share = stage.order[0] + (stage.order[1] - stage.order[0]) * done
        weight = stage.contrast[0] + (stage.contrast[1] - stage.contrast[0]) * done
        middle = self._middle[0]
        frames = contrast_loss(self._head(middle), batch, pick) if not stage.streaming else torch.zeros(())
        same = frames + voice_loss(middle, batch)
        self._optimizer.zero_grad()
        (share * order + (1 - share) * free + weight * same).backward()
        torch.nn.utils.clip_grad_norm_(self._parameters, 1.0)
        self._optimizer.step()
        return order.item(), free.item(), same.item()

    def _save_checkpoint(self) -> None:
        state = {"model": self.model.state_dict(), "head": self._head.state_dict(), "steps": self._steps,
                 "optimizer": self._optimizer.state_dict()}  # fmt: skip
        torch.save(state, self._work / "checkpoint.new")
        (self._work / "checkpoint.new").replace(self._work / "checkpoint.pt")


def train(work: Path, out: Path, *, resume: bool) -> None:
    """Train, and write the model and a report into `out`."""
    work.mkdir(parents=True, exist_ok=True)
    voices = load_voices(work / "heard.npz", make_people(HEARD_PEOPLE, 1, held_out=False), UTTERANCES, 1, flite_share=8)
    trainer = Trainer(work, voices)
    if resume:
        trainer.resume()
    report = trainer.train()
    out.mkdir(parents=True, exist_ok=True)
    write(trainer.model, learn(trainer.model.preprocessor, work))
    trainer.model.save_to(str(out / "sortformer-tiny.nemo"))
    (out / "training.json").write_text(json.dumps(report, indent=2) + "\n")


def main() -> None:
    """Train the tiny diarizer."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--work", type=Path, default=Path("build/tiny-diarizer"), help="voices and checkpoints")
    parser.add_argument("--out", type=Path, default=Path("models/sortformer-tiny"), help="where the model goes")
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    assert COLUMNS == 4
    train(arguments.work, arguments.out, resume=arguments.resume)


if __name__ == "__main__":
    main()
