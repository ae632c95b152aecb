"""The decoder state of an utterance: the search of a chunk goes on where the search of the chunk before stopped.

A state is a value in the host's memory, so that it can cross to another process and outlives the device.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState

from parakeet_stt.text.phrases import NO_PHRASES, Phrases

Array = npt.NDArray[Any]


@dataclass(frozen=True, slots=True, eq=False)
class SearchState:
    """Where the search of one utterance stands, after its last token.

    hidden, cell: of the prediction network, shape (layers, features). predicted: its output, projected, shape
    (1, features). All three float32 or float16; bfloat16 as its bits in int16, since numpy has no such type.
    label: the last token. jump: frames of the next part that the last token's duration skips.
    phrase_state: in the boosting tree of `phrases`, if there is one.
    """

    hidden: Array
    cell: Array
    predicted: Array
    label: int
    jump: int
    phrase_state: int | None
    phrases: Phrases = NO_PHRASES

    def for_phrases(self, phrases: Phrases) -> SearchState:
        """The same for a search with these phrases: a state in the tree of other phrases means nothing there."""
        return self if phrases == self.phrases else dataclasses.replace(self, phrase_state=None)


def initial_state(search: Any, device: torch.device) -> SearchState:
    """Where the search of every utterance begins. search: NeMo's computer of a greedy search."""
    with torch.inference_mode():
        state = search._get_batched_decoding_state_after_sos(device=device, batch_size=1)
        return split_states(state, [NO_PHRASES])[0]


def merge_states(states: Sequence[SearchState], search: Any, device: torch.device) -> BatchedLabelLoopingState:
    """The states of several utterances as the search takes them; times count from the start of the next part."""
    count = len(states)
    phrase_states = []
    if search.per_stream_biasing_enabled:
        (fresh,) = search.biasing_multi_model.get_init_states(batch_size=1, bos=True).tolist()
        numbers = [fresh if state.phrase_state is None else state.phrase_state for state in states]
        phrase_states = [torch.tensor(numbers, device=device)]
    return BatchedLabelLoopingState(
        predictor_states=(
            _to_tensor(np.stack([state.hidden for state in states], 1)).to(device),
            _to_tensor(np.stack([state.cell for state in states], 1)).to(device),
        ),
        predictor_outputs=_to_tensor(np.stack([state.predicted for state in states])).to(device),
        labels=torch.tensor([state.label for state in states], device=device),
        decoded_lengths=torch.zeros(count, dtype=torch.long, device=device),
        fusion_states_list=phrase_states,
        time_jumps=torch.tensor([state.jump for state in states], device=device),
    )


def split_states(state: BatchedLabelLoopingState, phrases: Sequence[Phrases]) -> list[SearchState]:
    """The state of each utterance of a batch. phrases: of each in the search that left the state."""
    hidden, cell = (_to_array(part) for part in state.predictor_states)
    predicted = _to_array(state.predictor_outputs)
    assert state.time_jumps is not None
    labels, jumps = state.labels.tolist(), state.time_jumps.tolist()
    numbers = state.fusion_states_list[0].tolist() if state.fusion_states_list else [None] * len(labels)
    return [
        SearchState(
            hidden[:, item].copy(),
            cell[:, item].copy(),
            predicted[item].copy(),
            labels[item],
            jumps[item],
            numbers[item] if own else None,
            own,
        )
        for item, own in enumerate(phrases)
    ]


def gather_frames(encoded: torch.Tensor, starts: torch.Tensor, counts: torch.Tensor) -> torch.Tensor:
    """`counts[i]` frames of each item from `starts[i]` on, padded. encoded: shape (batch, frames, features)."""
    width = max(int(counts.max()), 1)
    index = (starts[:, None] + torch.arange(width, device=encoded.device)).clamp(max=encoded.shape[1] - 1)
    return encoded.gather(1, index[..., None].expand(-1, -1, encoded.shape[2]))


def _to_array(tensor: torch.Tensor) -> Array:
    tensor = tensor.cpu()
    array: Array = (tensor.view(torch.int16) if tensor.dtype == torch.bfloat16 else tensor).numpy()
    return array


def _to_tensor(array: Array) -> torch.Tensor:
    tensor = torch.from_numpy(array)
    return tensor.view(torch.bfloat16) if tensor.dtype == torch.int16 else tensor
