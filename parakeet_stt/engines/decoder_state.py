"""Knows how a search goes on where an earlier one of the same speech stopped. Does not know audio, nor who speaks.

What is carried from step to step lies in the host's memory, so that it outlives whatever happens to the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState

from parakeet_stt.text.phrases import NONE, Phrases


@dataclass(frozen=True, slots=True, eq=False)
class SearchMemory:
    """Where the search of one utterance stands, after its last token.

    hidden, cell: of the prediction network, shape (layers, features). predicted: its output, projected, shape
    (1, features). label: the last token. jump: frames of the next part that the last token's duration skips.
    phrase: the state in the boosting tree of `phrases`, if there is one.
    """

    hidden: torch.Tensor
    cell: torch.Tensor
    predicted: torch.Tensor
    label: int
    jump: int
    phrase: int | None
    phrases: Phrases = NONE

    def listening_for(self, phrases: Phrases) -> SearchMemory:
        """The same for a search with these phrases: a state in the tree of others means nothing there."""
        return self if phrases == self.phrases else dataclasses.replace(self, phrase=None)


def beginning(search: Any, device: torch.device) -> SearchMemory:
    """Where the search of every utterance begins. search: NeMo's computer of a greedy search."""
    with torch.inference_mode():
        return split(search._get_batched_decoding_state_after_sos(device=device, batch_size=1), [NONE])[0]


def merged(memories: Sequence[SearchMemory], search: Any, device: torch.device) -> BatchedLabelLoopingState:
    """The states of several utterances as the search takes them, times counted from the start of the next part."""
    count = len(memories)
    phrases = []
    if search.per_stream_biasing_enabled:
        (fresh,) = search.biasing_multi_model.get_init_states(batch_size=1, bos=True).tolist()
        states = [fresh if memory.phrase is None else memory.phrase for memory in memories]
        phrases = [torch.tensor(states, device=device)]
    return BatchedLabelLoopingState(
        predictor_states=(
            torch.stack([memory.hidden for memory in memories], 1).to(device),
            torch.stack([memory.cell for memory in memories], 1).to(device),
        ),
        predictor_outputs=torch.stack([memory.predicted for memory in memories]).to(device),
        labels=torch.tensor([memory.label for memory in memories], device=device),
        decoded_lengths=torch.zeros(count, dtype=torch.long, device=device),
        fusion_states_list=phrases,
        time_jumps=torch.tensor([memory.jump for memory in memories], device=device),
    )


def split(state: BatchedLabelLoopingState, wanted: Sequence[Phrases]) -> list[SearchMemory]:
    """The state of each utterance of a batch. wanted: the phrases of each in the search that left it."""
    hidden, cell = (part.cpu() for part in state.predictor_states)
    predicted = state.predictor_outputs.cpu()
    assert state.time_jumps is not None
    labels, jumps = state.labels.tolist(), state.time_jumps.tolist()
    phrases = state.fusion_states_list[0].tolist() if state.fusion_states_list else [None] * len(labels)
    return [
        SearchMemory(
            hidden[:, item].clone(),
            cell[:, item].clone(),
            predicted[item].clone(),
            labels[item],
            jumps[item],
            phrases[item] if own else None,
            own,
        )
        for item, own in enumerate(wanted)
    ]


def windows(encoded: torch.Tensor, starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """`counts[i]` frames of each item from `starts[i]` on, padded; encoded: shape (batch, frames, features)."""
    width = max(int(counts.max()), 1)
    index = (starts[:, None] + torch.arange(width, device=encoded.device)).clamp(max=encoded.shape[1] - 1)
    return encoded.gather(1, index[..., None].expand(-1, -1, encoded.shape[2]))
