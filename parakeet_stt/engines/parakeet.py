"""The Parakeet recognizer: NeMo's transducer models with token-and-duration decoding.

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
from parakeet_stt.protocols import FRAME_SAMPLES, Chunk, ChunkResult
from parakeet_stt.text.phrases import NO_PHRASES, Phrases
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, Hypothesis, Token

for noisy in ("nv_one_logger", "OneLogger"):  # NeMo's telemetry announces at import that it does nothing
    logging.getLogger(noisy).setLevel(logging.ERROR)

import nemo.collections.asr as nemo_asr  # noqa: E402
from nemo.core.classes.common import typecheck  # noqa: E402
from nemo.utils import logging as nemo_logging  # noqa: E402

from parakeet_stt.engines import decoder_state, nemo_archive  # noqa: E402
from parakeet_stt.engines.boosting import Boosting  # noqa: E402
from parakeet_stt.engines.decoder_state import SearchState  # noqa: E402

nemo_logging.setLevel(nemo_logging.ERROR)

USABLE_MEMORY = 0.7  # of what is free: the allocator leaves gaps, and attention grows with the square of the length
MAX_SYMBOLS = 10  # tokens per encoder frame; the value that Parakeet's own config decodes with


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """Result of a search. tokens, frames: shape (batch, most tokens). lengths: number of tokens of each item."""

    tokens: torch.Tensor
    frames: torch.Tensor
    lengths: torch.Tensor


@dataclass(frozen=True, slots=True)
class Scores:
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
        self._dtype = devices.weight_type(precision, self._device, parameters)
        self._model = _prepare(model, self._device, self._dtype)
        self._trimmer = cpu.MemoryTrimmer() if self._device.type == "cpu" else None
        self._durations = torch.tensor(list(durations), device=self._device)
        self._pieces: list[str] = list(model.tokenizer.ids_to_tokens(list(range(model.tokenizer.vocab_size))))

    @cached_property
    def _initial_state(self) -> SearchState:
        return decoder_state.initial_state(self._model.decoding.decoding.decoding_computer, self._device)

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

    @property
    def frame_samples(self) -> int:
        """Samples of one encoder frame."""
        features, encoder = self._model.cfg.preprocessor, self._model.cfg.encoder
        return int(round(features.window_stride * features.sample_rate) * encoder.subsampling_factor)

    def warm_up(self, max_items: int, max_seconds: float) -> None:
        """Decode noise; see `protocols.Recognizer`.

        On a GPU the search goes over a batch of the largest size and length, since its CUDA graph is captured again for
        anything larger than before.
        """
        noise = np.random.default_rng(0).standard_normal(int(max_seconds * SAMPLE_RATE), np.float32) * np.float32(0.01)
        self.recognize([Audio(noise[:SAMPLE_RATE])])
        if self._device.type != "cpu":
            with torch.inference_mode():
                encoded, frames = self._encode([Audio(noise)])
                self._decode(encoded.repeat(max_items, 1, 1), frames.repeat(max_items))

    def recognize(self, batch: Sequence[Audio], phrases: Sequence[Phrases] = ()) -> list[Hypothesis]:
        """Decode each utterance independently, in input order; see `protocols.Recognizer`."""
        if not batch:
            return []
        try:
            trees = self._boosting.build_trees(phrases) if any(phrases) else None
            with torch.inference_mode():
                encoded, frames = self._encode(batch)
                found, _ = self._decode(encoded, frames, trees)
                scored = self._score(encoded, found)
        except RuntimeError as exc:
            raise self._convert_error(exc, len(batch)) from exc
        self._trim_memory()
        return [Hypothesis(self._tokens(scored, item, audio.duration)) for item, audio in enumerate(batch)]

    def decode_chunks(self, batch: Sequence[Chunk], phrases: Sequence[Phrases] = ()) -> list[ChunkResult]:
        """Decode one chunk of each of several utterances; see `protocols.Recognizer`."""
        if not batch:
            return []
        try:
            trees = self._boosting.build_trees(phrases) if any(phrases) else None
            with torch.inference_mode():
                encoded, frames = self._encode([chunk.audio for chunk in batch])
                left = torch.tensor([chunk.left_context // FRAME_SAMPLES for chunk in batch], device=self._device)
                right = torch.tensor([chunk.right_context for chunk in batch], device=self._device)
                lengths = torch.tensor([len(chunk.audio.samples) for chunk in batch], device=self._device)
                after_left = (frames - left).clamp(min=0)
                counts = torch.where(right > 0, (lengths - right) // FRAME_SAMPLES - left, after_left)
                own_phrases = list(phrases) or [NO_PHRASES] * len(batch)
                given = [one.state if isinstance(one.state, SearchState) else self._initial_state for one in batch]
                states = [state.for_phrases(own) for state, own in zip(given, own_phrases, strict=True)]
                part = decoder_state.gather_frames(encoded, left, counts)
                found, batched_state = self._decode(part, counts, trees, states)
                stable = self._score(part, found, states)
                reached = decoder_state.split_states(batched_state, own_phrases)
                rest = decoder_state.gather_frames(encoded, left + counts, after_left - counts)
                unstable = self._score(rest, self._decode(rest, after_left - counts, trees, reached)[0], reached)
        except RuntimeError as exc:
            raise self._convert_error(exc, len(batch)) from exc
        self._trim_memory()
        starts, ends = left.tolist(), (left + counts).tolist()
        return [
            ChunkResult(
                self._tokens(stable, item, chunk.audio.duration, starts[item]),
                self._tokens(unstable, item, chunk.audio.duration, ends[item]),
                reached[item],
            )
            for item, chunk in enumerate(batch)
        ]

    def capacity_seconds(self) -> float | None:
        """Padded seconds of audio that fit into the GPU's free memory, by the peak of one batch; None on a CPU."""
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
        """Memory that torch has reserved on the GPU; 0 on a CPU."""
        return 0.0 if self._device.type == "cpu" else float(torch.cuda.memory_reserved(self._device))

    def _trim_memory(self) -> None:
        if self._trimmer:
            self._trimmer()

    def _convert_error(self, exc: RuntimeError, count: int) -> RecognitionError:
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
        states: Sequence[SearchState] | None = None,
    ) -> tuple[SearchResult, Any]:
        """Greedy search from `states`, or from the beginning. Returns NeMo's state after the search as well."""
        if trees is None:
            search = self._model.decoding.decoding.decoding_computer
            before = decoder_state.merge_states(states, search, self._device) if states else None
            found, state = search(x=encoded, out_len=frames, prev_batched_state=before)
        else:
            before = decoder_state.merge_states(states, self._boosting.computer, self._device) if states else None
            found, state = self._boosting.search(encoded, frames, trees, before)
        lengths = found.current_lengths[: len(encoded)]
        most = int(lengths.max())
        return SearchResult(
            found.transcript[: len(encoded), :most], found.timestamps[: len(encoded), :most], lengths
        ), state

    def _score(self, encoded: torch.Tensor, found: SearchResult, states: Sequence[SearchState] | None = None) -> Scores:
        """One pass of the joint network over the tokens, for the probability and the duration of each.

        NeMo 3.0's batched search without CUDA graphs stores the duration of whichever item of the batch moved last.
        """
        tokens, frames, lengths = found.tokens, found.frames, found.lengths
        counts = lengths.tolist()
        if not tokens.shape[1]:
            empty: list[list[Any]] = [[] for _ in counts]
            return Scores(counts, empty, empty, empty, empty)
        joint = self._model.joint
        known = torch.arange(tokens.shape[1], device=tokens.device) < lengths[:, None]
        tokens, frames = tokens.where(known, 0), frames.where(known, 0)
        at_tokens = torch.gather(encoded, 1, frames[..., None].expand(-1, -1, encoded.shape[2]))
        logits = joint.joint_after_projection(
            joint.project_encoder(at_tokens).flatten(0, 1).unsqueeze(1),
            self._predicted(tokens, states or [self._initial_state] * len(tokens)).flatten(0, 1).unsqueeze(1),
        )
        logits = logits.reshape(*tokens.shape, -1).float()
        choices = len(self._durations)
        logprobs = torch.log_softmax(logits[..., :-choices], -1).gather(2, tokens[..., None]).squeeze(2)
        durations = self._durations[logits[..., -choices:].argmax(-1)]
        return Scores(counts, tokens.tolist(), frames.tolist(), durations.tolist(), logprobs.tolist())

    def _predicted(self, tokens: torch.Tensor, states: Sequence[SearchState]) -> torch.Tensor:
        """Projected output of the prediction network before each token, shape (batch, most tokens, features)."""
        before = decoder_state.merge_states(states, self._model.decoding.decoding.decoding_computer, self._device)
        first: torch.Tensor = before.predictor_outputs
        if tokens.shape[1] == 1:
            return first
        following, _ = self._model.decoder.predict(tokens[:, :-1], before.predictor_states, add_sos=False)
        projected: torch.Tensor = self._model.joint.project_prednet(following)
        return torch.cat([first, projected], 1)

    def _tokens(self, scored: Scores, item: int, duration: float, first_frame: int = 0) -> tuple[Token, ...]:
        tokens = []
        for index in range(scored.lengths[item]):
            frame, length = first_frame + scored.frames[item][index], scored.durations[item][index]
            token = scored.tokens[item][index]
            start, end = frame * ENCODER_FRAME_SECONDS, (frame + length) * ENCODER_FRAME_SECONDS
            logprob = scored.logprobs[item][index]
            tokens.append(Token(token, self._pieces[token], min(start, duration), min(end, duration), logprob))
        return tuple(tokens)


def _prepare(model: Any, device: torch.device, dtype: torch.dtype) -> Any:
    """Set once, at load, everything that decides a result: changing it later rebuilds the decoder."""
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
