"""Knows NeMo's transducer models with token-and-duration decoding. Does not know HTTP, files of callers, or batching.

The only path used is encoder → greedy decoder → scoring, never `model.transcribe()`, which leaves the network in train
mode. Token times, durations and log-probabilities come from the scoring pass (docs/decisions/0001-scoring-pass.md).
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from omegaconf import OmegaConf, open_dict

from parakeet_stt.audio import SAMPLE_RATE, Audio
from parakeet_stt.engines import cpu, devices
from parakeet_stt.errors import DeviceLost, OutOfMemory, RecognitionError, StartupError
from parakeet_stt.protocols import FRAME_SAMPLES, Step, Stepped
from parakeet_stt.text.phrases import NONE, Phrases
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Hypothesis, Token

for talker in ("nv_one_logger", "OneLogger"):  # NeMo's telemetry announces at import that it does nothing
    logging.getLogger(talker).setLevel(logging.ERROR)

import nemo.collections.asr as nemo_asr  # noqa: E402
from nemo.core.classes.common import typecheck  # noqa: E402
from nemo.utils import logging as nemo_logging  # noqa: E402

from parakeet_stt.engines import decoder_state as streaming  # noqa: E402
from parakeet_stt.engines import nemo_archive  # noqa: E402
from parakeet_stt.engines.boosting import Boosting  # noqa: E402
from parakeet_stt.engines.decoder_state import SearchMemory  # noqa: E402

nemo_logging.setLevel(nemo_logging.ERROR)

USABLE_MEMORY = 0.7  # of what is free: the allocator leaves gaps, and attention grows with the square of the length
MAX_SYMBOLS = 10  # tokens per encoder frame; the value that Parakeet's own config decodes with


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What a search has found: tokens and their frames, both of shape (batch, most tokens), and how many each has."""

    tokens: torch.Tensor
    frames: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True, slots=True)
class Scored:
    """The decoder's tokens of a batch; every list but `lengths` is of shape (batch, most tokens)."""

    lengths: list[int]
    tokens: list[list[int]]
    frames: list[list[int]]
    durations: list[list[int]]
    logprobs: list[list[float]]


class Parakeet:
    """A loaded Parakeet-TDT (or any NeMo BPE transducer with durations) on one device. Not thread-safe."""

    def __init__(
        self, path: Path, *, device: str = "auto", precision: devices.Precision = "auto", threads: int = 0
    ) -> None:
        """Load the .nemo file at `path` and make it ready to decode.

        device, precision: as in `devices.py`. threads: on a CPU, for the calling thread, which alone should then use
        the model; 0 leaves one core free.
        Raises StartupError if the file is no such model or the device is not there.
        """
        self._device = devices.resolve(device)
        if self._device.type == "cpu":
            devices.use_threads(threads)
        typecheck.set_typecheck_enabled(enabled=False)  # 5 ms a call
        try:
            model = nemo_archive.restore(path)
        except Exception as exc:  # NeMo raises whatever tar, YAML, Hydra and torch raise
            raise StartupError(f"{path} can't be loaded as a NeMo speech model: {_first_line(exc)}") from exc
        durations = OmegaConf.select(model.cfg, "decoding.durations")
        if not isinstance(model, nemo_asr.models.EncDecRNNTBPEModel) or not durations:
            raise StartupError(f"{path} is a {type(model).__name__} without durations, not a Parakeet-TDT model")
        parameters = sum(parameter.numel() for parameter in model.parameters())
        self._dtype = devices.type_of_weights(precision, self._device, parameters)
        self._model = _prepared(model, self._device, self._dtype)
        self._tidying = cpu.Tidying() if self._device.type == "cpu" else None
        self._durations = torch.tensor(list(durations), device=self._device)
        self._pieces: list[str] = list(model.tokenizer.ids_to_tokens(list(range(model.tokenizer.vocab_size))))

    @cached_property
    def _beginning(self) -> SearchMemory:
        return streaming.beginning(self._model.decoding.decoding.decoding_computer, self._device)

    @cached_property
    def _boosting(self) -> Boosting:
        return Boosting(self._model.decoding.decoding.decoding_computer, self._model.tokenizer)

    @property
    def device(self) -> str:
        """Where the network runs: cpu, cuda, cuda:1."""
        return str(self._device)

    @property
    def precision(self) -> str:
        """The type of the weights: float32, bfloat16, float16."""
        return str(self._dtype).removeprefix("torch.")

    @property
    def config(self) -> str:
        """The active NeMo configuration as YAML."""
        text: str = OmegaConf.to_yaml(self._model.cfg, resolve=True)
        return text

    def warm_up(self, most: int, longest: float) -> None:
        """Decode noise, so that no caller pays for what happens only the first time.

        most, longest: the largest batch and the longest utterance, in seconds, to come. On a GPU the search goes over a
        batch of both, since its CUDA graph is captured again for anything larger than before.
        """
        noise = np.random.default_rng(0).standard_normal(int(longest * SAMPLE_RATE), np.float32) * np.float32(0.01)
        self.recognize([Audio(noise[:SAMPLE_RATE])])
        if self._device.type != "cpu":
            with torch.inference_mode():
                encoded, frames = self._encode([Audio(noise)])
                self._decode(encoded.repeat(most, 1, 1), frames.repeat(most))

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Decode each utterance independently, in input order. See `parakeet_stt.protocols.Recognizer`."""
        if not batch:
            return []
        try:
            trees = self._boosting.planted(phrases) if any(phrases) else None
            with torch.inference_mode():
                encoded, frames = self._encode(batch)
                found, _ = self._decode(encoded, frames, trees)
                scored = self._score(encoded, found)
        except RuntimeError as exc:
            raise self._understood(exc, len(batch)) from exc
        self._tidy()
        return [Hypothesis(self._tokens(scored, item, audio.duration)) for item, audio in enumerate(batch)]

    def step(self, batch: Sequence[Step], phrases: Sequence[Phrases] = ()) -> list[Stepped]:
        """Decode a part of each of several utterances. See `parakeet_stt.protocols.Recognizer`."""
        if not batch:
            return []
        try:
            trees = self._boosting.planted(phrases) if any(phrases) else None
            with torch.inference_mode():
                encoded, frames = self._encode([step.audio for step in batch])
                before = torch.tensor([step.before // FRAME_SAMPLES for step in batch], device=self._device)
                after = torch.tensor([step.after for step in batch], device=self._device)
                lengths = torch.tensor([len(step.audio.samples) for step in batch], device=self._device)
                left = (frames - before).clamp(min=0)
                counts = torch.where(after > 0, (lengths - after) // FRAME_SAMPLES - before, left)
                part = streaming.windows(encoded, before, counts)
                wanted = list(phrases) or [NONE] * len(batch)
                before_part = [one.memory if isinstance(one.memory, SearchMemory) else self._beginning for one in batch]
                memories = [one.listening_for(own) for one, own in zip(before_part, wanted, strict=True)]
                found, state = self._decode(part, counts, trees, memories)
                scored = self._score(part, found, memories)
                reached = streaming.split(state, wanted)
                rest = streaming.windows(encoded, before + counts, left - counts)
                tails = self._score(rest, self._decode(rest, left - counts, trees, reached)[0], reached)
        except RuntimeError as exc:
            raise self._understood(exc, len(batch)) from exc
        self._tidy()
        offsets, ends = before.tolist(), (before + counts).tolist()
        return [
            Stepped(
                self._tokens(scored, item, step.audio.duration, offsets[item]),
                self._tokens(tails, item, step.audio.duration, ends[item]),
                reached[item],
            )
            for item, step in enumerate(batch)
        ]

    def room(self) -> float | None:
        """The padded seconds of audio that the GPU's free memory holds, by the peak of one batch; None on a CPU."""
        if self._device.type == "cpu":
            return None
        torch.cuda.reset_peak_memory_stats(self._device)
        before = torch.cuda.memory_allocated(self._device)
        seconds, count = 10, 16
        self.recognize([Audio(np.zeros(seconds * SAMPLE_RATE, np.float32))] * count)
        used = max(1, torch.cuda.max_memory_allocated(self._device) - before)
        free, _ = torch.cuda.mem_get_info(self._device)
        return USABLE_MEMORY * free / used * seconds * count

    def memory_bytes(self) -> float:
        """What torch holds of the GPU's memory; 0 on a CPU."""
        return 0.0 if self._device.type == "cpu" else float(torch.cuda.memory_reserved(self._device))

    def _tidy(self) -> None:
        if self._tidying:
            self._tidying()

    def _understood(self, exc: RuntimeError, count: int) -> RecognitionError:
        message = f"the model failed on a batch of {count}: {_first_line(exc)}"
        if isinstance(exc, torch.OutOfMemoryError) or "can't allocate memory" in str(exc):
            if self._device.type == "cuda":
                torch.cuda.empty_cache()
            return OutOfMemory(message)
        return DeviceLost(message) if isinstance(exc, torch.AcceleratorError) else RecognitionError(message)

    def _encode(self, batch: Sequence[Audio]) -> tuple[torch.Tensor, torch.Tensor]:
        """Encoder output, shape (batch, frames, features), and each item's number of frames."""
        lengths = torch.tensor([len(audio.samples) for audio in batch])
        padded = torch.zeros(len(batch), int(lengths.max()))
        for row, audio in zip(padded, batch, strict=True):
            row[: len(audio.samples)] = torch.from_numpy(audio.samples)
        features, feature_lengths = self._model.preprocessor(
            input_signal=padded.to(self._device), length=lengths.to(self._device)
        )
        encoded, frames = self._model.encoder(audio_signal=features.to(self._dtype), length=feature_lengths)
        return encoded.transpose(1, 2), frames

    def _decode(
        self,
        encoded: torch.Tensor,
        frames: torch.Tensor,
        trees: torch.Tensor | None = None,
        memories: Sequence[SearchMemory] | None = None,
    ) -> tuple[Found, Any]:
        """Greedy search, from where each item's search stands, if it has begun; and where it stands afterwards."""
        if trees is None:
            search = self._model.decoding.decoding.decoding_computer
            before = streaming.merged(memories, search, self._device) if memories else None
            found, state = search(x=encoded, out_len=frames, prev_batched_state=before)
        else:
            before = streaming.merged(memories, self._boosting.computer, self._device) if memories else None
            found, state = self._boosting.search(encoded, frames, trees, before)
        lengths = found.current_lengths[: len(encoded)]
        most = int(lengths.max())
        return Found(found.transcript[: len(encoded), :most], found.timestamps[: len(encoded), :most], lengths), state

    def _score(self, encoded: torch.Tensor, found: Found, memories: Sequence[SearchMemory] | None = None) -> Scored:
        """One pass of the joint network over the tokens found, which gives each its probability and its duration.

        NeMo 3.0's batched search without CUDA graphs stores the duration of whichever batch mate moved last.
        """
        tokens, frames, lengths = found.tokens, found.frames, found.lengths
        counts = lengths.tolist()
        if not tokens.shape[1]:
            empty: list[list[Any]] = [[] for _ in counts]
            return Scored(counts, empty, empty, empty, empty)
        joint = self._model.joint
        known = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        tokens, frames = tokens.where(known, 0), frames.where(known, 0)
        heard = torch.gather(encoded, 1, frames[..., None].expand(-1, -1, encoded.shape[2]))
        logits = joint.joint_after_projection(
            joint.project_encoder(heard).flatten(0, 1).unsqueeze(1),
            self._predicted(tokens, memories or [self._beginning] * len(tokens)).flatten(0, 1).unsqueeze(1),
        )
        logits = logits.reshape(*tokens.shape, -1).float()
        choices = len(self._durations)
        logprobs = torch.log_softmax(logits[..., :-choices], -1).gather(2, tokens[..., None]).squeeze(2)
        durations = self._durations[logits[..., -choices:].argmax(-1)]
        return Scored(counts, tokens.tolist(), frames.tolist(), durations.tolist(), logprobs.tolist())

    def _predicted(self, tokens: torch.Tensor, memories: Sequence[SearchMemory]) -> torch.Tensor:
        """What the prediction network says before each token, projected, shape (batch, most tokens, features)."""
        before = streaming.merged(memories, self._model.decoding.decoding.decoding_computer, self._device)
        first: torch.Tensor = before.predictor_outputs
        if tokens.shape[1] == 1:
            return first
        following, _ = self._model.decoder.predict(tokens[:, :-1], before.predictor_states, add_sos=False)
        projected: torch.Tensor = self._model.joint.project_prednet(following)
        return torch.cat([first, projected], 1)

    def _tokens(self, scored: Scored, item: int, duration: float, first_frame: int = 0) -> tuple[Token, ...]:
        tokens = []
        for index in range(scored.lengths[item]):
            frame, length = first_frame + scored.frames[item][index], scored.durations[item][index]
            token = scored.tokens[item][index]
            start, end = frame * ENCODER_FRAME_SECONDS, (frame + length) * ENCODER_FRAME_SECONDS
            logprob = scored.logprobs[item][index]
            tokens.append(Token(token, self._pieces[token], min(start, duration), min(end, duration), logprob))
        return tuple(tokens)


def _prepared(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Set everything that decides a result once, at load: changing it later rebuilds the decoder."""
    decoding = copy.deepcopy(model.cfg.decoding)
    with open_dict(decoding):
        decoding.strategy = "greedy_batch"
        decoding.greedy = {
            "max_symbols": MAX_SYMBOLS,
            "loop_labels": True,
            "use_cuda_graph_decoder": device.type == "cuda",
        }
    model.change_decoding_strategy(decoding, verbose=False)
    model.preprocessor.featurizer.dither = 0.0  # random noise would make results differ from call to call
    model.preprocessor.featurizer.pad_to = 0
    model.to(device)
    for part in (model.encoder, model.decoder, model.joint):
        part.to(dtype)  # weights, not autocast; the mel front end stays float32
    if device.type == "cpu":
        cpu.pack(model.encoder)
        recurrent = model.decoder.prediction["dec_rnn"]
        recurrent.lstm = cpu.SteppedLSTM(recurrent.lstm)
    model.freeze()
    model.eval()
    return model


def _first_line(exc: BaseException) -> str:
    return next(iter(str(exc).splitlines()), type(exc).__name__)
