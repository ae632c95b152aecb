"""The decoder state of an utterance: the search of a chunk goes on where the search of the chunk before stopped.

A state is a value in the host's memory, so that it can cross to another process and outlives the device. `StateCache`
keeps the states of the latest sessions on the device as well, where the next chunk finds them by their number.
"""

from __future__ import annotations

import dataclasses
import itertools
import secrets
from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState

from parakeet_stt.text.phrases import NO_PHRASES, Phrases

Array = npt.NDArray[Any]

SESSIONS = 1024  # states kept on the device: 6.4 kB each at 0.6B in bfloat16; more than one GPU follows in real time
INITIAL = 0  # the cache's slot for the state in which every utterance begins


@dataclass(frozen=True, slots=True, eq=False)
class SearchState:
    """Where the search of one utterance stands, after its last token.

    hidden, cell: of the prediction network, shape (layers, features). predicted: its output, projected, shape
    (1, features). All three float32 or float16; bfloat16 as its bits in int16, since numpy has no such type.
    label: the last token. jump: frames of the next part that the last token's duration skips.
    phrase_state: in the boosting tree of `phrases`, if there is one. number: of the same state in the `StateCache` of
    the process that made it; another process does not have this number, and takes the arrays.
    """

    hidden: Array
    cell: Array
    predicted: Array
    label: int
    jump: int
    phrase_state: int | None
    phrases: Phrases = NO_PHRASES
    number: int | None = None

    def for_phrases(self, phrases: Phrases) -> SearchState:
        """The same for a search with these phrases: a state in the tree of other phrases means nothing there."""
        return self if phrases == self.phrases else dataclasses.replace(self, phrase_state=None)


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the states of a batch come from and go to; all arrays are in the host's memory.

    slots: of the state of each item before its chunk, int64, shape (batch,). new_slots: of its state after, for the
    first of the items, if the batch is larger than the cache. numbers: of these new states. has_phrases: 1 where the
    phrase state holds for the batch's phrases, else 0. missing: items whose state the cache does not have, whose slot
    is `INITIAL`; int64. arrays: their states as hidden, cell, predicted, and (label, jump, phrase state) in int64,
    shape (3, missing).
    """

    slots: Array
    new_slots: Array
    numbers: list[int]
    has_phrases: Array
    missing: Array
    arrays: tuple[Array, Array, Array, Array] | None


class StateCache:
    """The states of the latest sessions, in the device's memory. The one used longest ago gives way."""

    def __init__(self, search: Any, device: torch.device, *, capacity: int = SESSIONS) -> None:
        """search: NeMo's computer of a greedy search. capacity: number of states."""
        with torch.inference_mode():
            self.initial: BatchedLabelLoopingState = search._get_batched_decoding_state_after_sos(
                device=device, batch_size=1
            )
            (hidden, cell), predicted = self.initial.predictor_states, self.initial.predictor_outputs
            slots = capacity + 1
            self._hidden = hidden.repeat(1, slots, 1)
            self._cell = cell.repeat(1, slots, 1)
            self._predicted = predicted.repeat(slots, 1, 1)
            self._labels = self.initial.labels.repeat(slots)
            self._jumps = torch.zeros(slots, dtype=torch.long, device=device)
            self._phrase_states = torch.zeros(slots, dtype=torch.long, device=device)
        self._slots: OrderedDict[int, int] = OrderedDict()  # number of a state → slot; least recently used first
        self._free = list(range(slots - 1, INITIAL, -1))
        self._numbers = itertools.count(secrets.randbits(62))  # random: no other process has the same numbers

    def __len__(self) -> int:
        return len(self._slots)

    def first(self, count: int) -> BatchedLabelLoopingState:
        """The state in which `count` utterances begin, in a search without phrases."""
        return self._read(torch.zeros(count, dtype=torch.long, device=self._labels.device))

    def place(self, states: Sequence[SearchState | None], phrases: Sequence[Phrases]) -> Placement:
        """Find the states of a batch and the slots of its next ones. None: the utterance begins with this chunk.

        phrases: of each item. The slots are in the device's memory only after `save`.
        """
        slots, missing = [INITIAL] * len(states), []
        for item, state in enumerate(states):
            if state is None:
                continue
            if state.number is not None and state.number in self._slots:
                self._slots.move_to_end(state.number)
                slots[item] = self._slots[state.number]
            else:
                missing.append((item, state))
        has_phrases = [
            int(state is not None and state.phrase_state is not None and state.phrases == own)
            for state, own in zip(states, phrases, strict=True)
        ]
        numbers = list(itertools.islice(self._numbers, min(len(states), len(self._labels) - 1)))
        return Placement(
            np.array(slots, np.int64),
            np.array([self._take_slot(number) for number in numbers], np.int64),
            numbers,
            np.array(has_phrases, np.int64),
            np.array([item for item, _ in missing], np.int64),
            _stack([state for _, state in missing]) if missing else None,
        )

    def load(
        self, placed: Sequence[torch.Tensor], missing: Sequence[torch.Tensor], biasing: Any = None
    ) -> BatchedLabelLoopingState:
        """The states of a batch as the search takes them; times count from the start of the next part.

        placed: slots and has_phrases of a `Placement`, on the device. missing: its missing items and their arrays, or
        nothing. biasing: NeMo's model of many trees, in a search with phrases.
        """
        slots, has_phrases = placed
        state = self._read(slots)
        phrase_states = self._phrase_states[slots]
        if missing:
            items, hidden, cell, predicted, numbers = missing
            dtype = self._hidden.dtype
            state.predictor_states[0].index_copy_(1, items, hidden.view(dtype))
            state.predictor_states[1].index_copy_(1, items, cell.view(dtype))
            state.predictor_outputs.index_copy_(0, items, predicted.view(dtype))
            assert state.time_jumps is not None
            for own, given in zip((state.labels, state.time_jumps, phrase_states), numbers, strict=True):
                own.index_copy_(0, items, given)
        if biasing is not None:
            fresh = biasing.get_init_states(batch_size=len(slots), bos=True)
            state.fusion_states_list = [torch.where(has_phrases > 0, phrase_states, fresh)]
        return state

    def save(self, state: BatchedLabelLoopingState, new_slots: torch.Tensor) -> None:
        """Keep the states of the first items of a batch in these slots. state: of the batch's items alone."""
        count = len(new_slots)
        assert state.time_jumps is not None
        self._hidden.index_copy_(1, new_slots, state.predictor_states[0][:, :count])
        self._cell.index_copy_(1, new_slots, state.predictor_states[1][:, :count])
        self._predicted.index_copy_(0, new_slots, state.predictor_outputs[:count])
        self._labels.index_copy_(0, new_slots, state.labels[:count])
        self._jumps.index_copy_(0, new_slots, state.time_jumps[:count])
        if state.fusion_states_list:
            self._phrase_states.index_copy_(0, new_slots, state.fusion_states_list[0][:count])

    def _read(self, slots: torch.Tensor) -> BatchedLabelLoopingState:
        return BatchedLabelLoopingState(
            predictor_states=(self._hidden.index_select(1, slots), self._cell.index_select(1, slots)),
            predictor_outputs=self._predicted[slots],
            labels=self._labels[slots],
            decoded_lengths=torch.zeros_like(slots),
            time_jumps=self._jumps[slots],
        )

    def _take_slot(self, number: int) -> int:
        slot = self._free.pop() if self._free else self._slots.popitem(last=False)[1]
        self._slots[number] = slot
        return slot


def trim(state: BatchedLabelLoopingState, count: int) -> BatchedLabelLoopingState:
    """The state of a batch's `count` items alone: NeMo's CUDA graphs give as many as their widest batch had.

    Times count from the start of the next part.
    """
    assert state.time_jumps is not None
    return BatchedLabelLoopingState(
        predictor_states=tuple(part[:, :count].contiguous() for part in state.predictor_states),  # as cuDNN wants them
        predictor_outputs=state.predictor_outputs[:count],
        labels=state.labels[:count],
        decoded_lengths=torch.zeros_like(state.labels[:count]),
        fusion_states_list=[part[:count] for part in state.fusion_states_list],
        time_jumps=state.time_jumps[:count],
    )


def for_trees(state: BatchedLabelLoopingState, trees: torch.Tensor | None, biasing: Any) -> BatchedLabelLoopingState:
    """A copy of a trimmed state for the next search of the same batch: items without a tree begin in none.

    trees: of each item, or None in a search without phrases. biasing: NeMo's model of many trees.
    """
    if trees is None:
        return state
    fresh = biasing.get_init_states(batch_size=len(trees), bos=True)
    return dataclasses.replace(state, fusion_states_list=[torch.where(trees >= 0, state.fusion_states_list[0], fresh)])


def tensors_of(state: BatchedLabelLoopingState) -> list[torch.Tensor]:
    """What `split_states` needs of a trimmed state, to be downloaded."""
    assert state.time_jumps is not None
    phrase_states = state.fusion_states_list[0] if state.fusion_states_list else torch.zeros_like(state.labels)
    numbers = torch.stack([state.labels, state.time_jumps, phrase_states]).int()
    return [numbers, *state.predictor_states, state.predictor_outputs]


def split_states(arrays: Sequence[Array], phrases: Sequence[Phrases], numbers: Sequence[int]) -> list[SearchState]:
    """The state of each utterance of a batch. arrays: of `tensors_of`, on the host. phrases: of each item.

    numbers: of the states that are in the cache as well, which are the first ones.
    """
    (labels, jumps, phrase_states), hidden, cell, predicted = arrays
    cached: list[int | None] = [*numbers, *[None] * (len(phrases) - len(numbers))]
    return [
        SearchState(
            hidden[:, item].copy(),
            cell[:, item].copy(),
            predicted[item].copy(),
            int(labels[item]),
            int(jumps[item]),
            int(phrase_states[item]) if own else None,
            own,
            cached[item],
        )
        for item, own in enumerate(phrases)
    ]


def gather_frames(encoded: torch.Tensor, starts: torch.Tensor, width: int) -> torch.Tensor:
    """`width` frames of each item from `starts[i]` on. encoded: shape (batch, frames, features)."""
    index = (starts[:, None] + torch.arange(width, device=encoded.device)).clamp(max=encoded.shape[1] - 1)
    return encoded.gather(1, index[..., None].expand(-1, -1, encoded.shape[2]))


def _stack(states: Sequence[SearchState]) -> tuple[Array, Array, Array, Array]:
    numbers = [(state.label, state.jump, state.phrase_state or 0) for state in states]
    return (
        np.stack([state.hidden for state in states], 1),
        np.stack([state.cell for state in states], 1),
        np.stack([state.predicted for state in states]),
        np.array(numbers, np.int64).T,
    )
