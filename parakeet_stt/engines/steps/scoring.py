"""Tokens of a search → their durations and log-probabilities, in one pass of the joint network.

NeMo 3.0's batched search without CUDA graphs stores the duration of whichever item of the batch moved last
(docs/decisions/0001-scoring-pass.md).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState

from parakeet_stt.engines.steps.pieces import Pieces
from parakeet_stt.text.transcript import ENCODER_FRAME_SECONDS, TokenArrays

SPARE_TOKENS = 8  # of a short chunk, beyond half of its frames


@dataclass(frozen=True, slots=True, eq=False)
class SearchResult:
    """Result of a search. tokens, frames: shape (batch, width). lengths: number of tokens of each item.

    predicted: what the prediction network gave before each token, projected, shape (batch, width, features), where the
    search has kept it.
    """

    tokens: torch.Tensor
    frames: torch.Tensor
    lengths: torch.Tensor
    predicted: torch.Tensor | None = None

    def first(self, width: int) -> SearchResult:
        """The first `width` tokens of each item; views."""
        predicted = None if self.predicted is None else self.predicted[:, :width]
        return SearchResult(self.tokens[:, :width], self.frames[:, :width], self.lengths, predicted)


@dataclass(frozen=True, slots=True, eq=False)
class Scores:
    """The tokens of a batch on the device. lengths: int32, shape (batch,). The others: shape (batch, width).

    tokens, frames, durations: int32; frames from the start of the part that was decoded. logprobs: float32.
    """

    lengths: torch.Tensor
    tokens: torch.Tensor
    frames: torch.Tensor
    durations: torch.Tensor
    logprobs: torch.Tensor

    @property
    def tensors(self) -> list[torch.Tensor]:
        """All five, to be downloaded for `split_tokens`."""
        return [self.lengths, self.tokens, self.frames, self.durations, self.logprobs]


def likely_width(frames: int) -> int:
    """Tokens that an item of so many frames has at most, unless it is unusual speech.

    Half a token a frame is 6.25 a second; fluent English has 3.5. Waiting for the real number would make the host wait
    for the search; too small a number is noticed when the results arrive, and then they are scored again.
    """
    return frames // 2 + SPARE_TOKENS


class Scorer:
    """Scores the tokens of a search with the network that found them."""

    def __init__(self, model: Any, durations: Sequence[int], device: torch.device) -> None:
        """model: NeMo's. durations: in frames, of each of the joint network's last outputs."""
        self._model = model
        self._durations = torch.tensor(list(durations), device=device)

    def score(self, encoded: torch.Tensor, found: SearchResult, before: BatchedLabelLoopingState) -> Scores:
        """encoded: shape (batch, frames, features). before: the state that the search began in."""
        tokens, frames, lengths = found.tokens, found.frames, found.lengths.int()
        if not tokens.shape[1]:
            empty = tokens.int()
            return Scores(lengths, empty, empty, empty, empty.float())
        joint = self._model.joint
        known = torch.arange(tokens.shape[1], device=tokens.device) < found.lengths[:, None]
        tokens, frames = tokens.where(known, 0), frames.where(known, 0)
        at_tokens = torch.gather(encoded, 1, frames[..., None].expand(-1, -1, encoded.shape[2]))
        predicted = self._predict(tokens, before) if found.predicted is None else found.predicted
        logits = joint.joint_after_projection(
            joint.project_encoder(at_tokens).flatten(0, 1).unsqueeze(1),
            predicted.flatten(0, 1).unsqueeze(1),
        )
        logits = logits.reshape(*tokens.shape, -1).float()
        choices = len(self._durations)
        logprobs = torch.log_softmax(logits[..., :-choices], -1).gather(2, tokens[..., None]).squeeze(2)
        durations = self._durations[logits[..., -choices:].argmax(-1)]
        return Scores(lengths, tokens.int(), frames.int(), durations.int(), logprobs)

    def _predict(self, tokens: torch.Tensor, before: BatchedLabelLoopingState) -> torch.Tensor:
        """Projected output of the prediction network before each token, shape (batch, width, features)."""
        first: torch.Tensor = before.predictor_outputs
        if tokens.shape[1] == 1:
            return first
        following, _ = self._model.decoder.predict(tokens[:, :-1], before.predictor_states, add_sos=False)
        projected: torch.Tensor = self._model.joint.project_prednet(following)
        return torch.cat([first, projected], 1)


def split_tokens(
    arrays: Sequence[npt.NDArray[Any]],
    vocabulary: Pieces,
    seconds: Sequence[float],
    first_frames: Sequence[int] | None = None,
) -> list[TokenArrays]:
    """The tokens of each item that are text. arrays: of `Scores.tensors`, which may have items more, as padding.

    seconds: length of each item's audio, which no time passes.
    first_frames: of the part of each item that was decoded; 0 unless given.
    """
    lengths, tokens, frames, durations, logprobs = (array[: len(seconds)] for array in arrays)
    longest = np.array(seconds)[:, None]
    begins = frames + np.array(first_frames if first_frames else [0] * len(lengths), np.int64)[:, None]
    starts = np.minimum(begins * ENCODER_FRAME_SECONDS, longest)
    ends = np.minimum((begins + durations) * ENCODER_FRAME_SECONDS, longest)
    found = []
    for item, count in enumerate(lengths.tolist()):
        kept = vocabulary.is_text[tokens[item, :count]]
        columns = (column[item, :count][kept] for column in (tokens, starts, ends, logprobs))
        found.append(TokenArrays(vocabulary, *columns))
    return found
