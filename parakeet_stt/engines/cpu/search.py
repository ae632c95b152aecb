"""Greedy search on a CPU: what NeMo's does, with its bookkeeping in Python's numbers.

NeMo's keeps every number in a tensor, so that a GPU never waits; on a CPU these operations take three quarters of a
millisecond a token, as long as a small network. docs/decisions/0004-cpu-engine.md has the figures.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from nemo.collections.asr.parts.submodules.transducer_decoding.label_looping_base import BatchedLabelLoopingState

FORCED_FRAMES = 1  # that a blank, or the last of `max_symbols` tokens of one frame, moves at least


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """What is used of NeMo's `BatchedHyps`. transcript, timestamps: shape (batch, width). current_lengths: (batch,).

    predicted: of the prediction network before each token, projected; shape (batch, width, features).
    """

    transcript: torch.Tensor
    timestamps: torch.Tensor
    current_lengths: torch.Tensor
    predicted: torch.Tensor


def make_search(computer: Any, device: torch.device) -> Any:
    """The search for a device. computer: `steps.search.GraphSearch`, or NeMo's, which a GPU has."""
    return StepSearch(computer) if device.type == "cpu" else computer


class StepSearch:
    """Label-looping greedy search (arXiv:2406.06220) of a token-and-duration transducer, called as NeMo's is."""

    def __init__(self, plain: Any) -> None:
        """plain: NeMo's search of the same model, whose networks, and whose model of many trees, this one uses."""
        self._plain = plain
        self._durations: list[int] = plain.durations.tolist()
        self._activate, *_, self._score = plain.joint.joint_net  # what is between them does nothing but in training

    def __call__(
        self,
        x: torch.Tensor,
        out_len: torch.Tensor,
        prev_batched_state: BatchedLabelLoopingState | None = None,
        multi_biasing_ids: torch.Tensor | None = None,
    ) -> tuple[Found, BatchedLabelLoopingState]:
        """x: the encoder's output, shape (batch, frames, features). out_len: of each item in frames, shape (batch,).

        multi_biasing_ids: the tree of each item, shape (batch,), in a search with trees. The state's times count from
        the end of `x`.
        """
        (count, width, _), plain = x.shape, self._plain
        blank, joint = plain._blank_index, plain.joint
        before = prev_batched_state or plain._get_batched_decoding_state_after_sos(x.device, count)
        assert before.time_jumps is not None
        encoded = joint.project_encoder(x).flatten(0, 1)
        state, predicted, trees = before.predictor_states, before.predictor_outputs[:, 0], before.fusion_states_list
        times, ends, labels = before.time_jumps.tolist(), out_len.tolist(), before.labels.tolist()
        tokens: list[list[int]] = [[] for _ in ends]
        frames: list[list[int]] = [[] for _ in ends]
        history = []
        active = [item for item in range(count) if times[item] < ends[item]]
        while active:
            history.append(predicted)
            found, seeking = [], active
            if multi_biasing_ids is not None:  # scores of all tokens, and the place in the tree after each
                (added,), (following,) = plain.advance_fusion_models(trees, multi_biasing_ids, predicted.dtype)
            while seeking:
                at = _rows(encoded, [item * width + times[item] for item in seeking])
                logits = self._score(self._activate(at + _rows(predicted, seeking)))
                best = logits[:, : blank + 1].argmax(1).tolist()
                if multi_biasing_ids is not None:  # the network alone decides whether there is a token
                    boosted = (logits[:, :blank] + _rows(added, seeking)).argmax(1).tolist()
                    best = [token if token == blank else other for token, other in zip(best, boosted, strict=True)]
                steps = logits[:, blank + 1 :].argmax(1).tolist()
                blanks = []
                for item, token, step in zip(seeking, best, steps, strict=True):
                    if token == blank:
                        times[item] += max(self._durations[step], FORCED_FRAMES)
                        blanks.append(item)
                    else:
                        tokens[item].append(token)
                        frames[item].append(times[item])
                        times[item] += self._durations[step]
                        found.append(item)
                seeking = [item for item in blanks if times[item] < ends[item]]
            if not found:
                break
            found.sort()
            for item in found:
                labels[item] = tokens[item][-1]
                if times[item] < ends[item] and frames[item][-plain.max_symbols :] == [times[item]] * plain.max_symbols:
                    times[item] += FORCED_FRAMES
            state, predicted = self._predict(labels, found, state, predicted)
            if multi_biasing_ids is not None:
                own = torch.tensor(found)
                trees = [trees[0].index_copy(0, own, following[own, torch.tensor(labels)[own]])]
            active = [item for item in found if times[item] < ends[item]]
        return (
            Found(
                _pad(tokens),
                _pad(frames),
                torch.tensor([len(row) for row in tokens]),
                torch.stack(history or [predicted], 1),
            ),
            BatchedLabelLoopingState(
                predictor_states=state,
                predictor_outputs=predicted[:, None],
                labels=torch.tensor(labels),
                decoded_lengths=before.decoded_lengths + out_len,
                fusion_states_list=trees,
                time_jumps=torch.tensor([time - end for time, end in zip(times, ends, strict=True)]),
            ),
        )

    def _predict(
        self, labels: Sequence[int], found: Sequence[int], state: Any, predicted: torch.Tensor
    ) -> tuple[Any, torch.Tensor]:
        """The state and the output after the labels of the items that have found one; the others' stay."""
        prediction = self._plain.decoder.prediction
        embedded = prediction["embed"](torch.tensor([[labels[item] for item in found]]))
        if len(found) == len(predicted):
            output, after = prediction["dec_rnn"].lstm(embedded, state)
            return after, self._plain.joint.project_prednet(output[0])
        items = torch.tensor(found)
        output, after = prediction["dec_rnn"].lstm(embedded, tuple(part.index_select(1, items) for part in state))
        projected = self._plain.joint.project_prednet(output[0])
        return (
            tuple(old.index_copy(1, items, new) for old, new in zip(state, after, strict=True)),
            predicted.index_copy(0, items, projected),
        )


def _rows(tensor: torch.Tensor, numbers: Sequence[int]) -> torch.Tensor:
    """These rows, of which a single one or all in order are not copied."""
    if len(numbers) == 1:
        return tensor[numbers[0]][None]
    return tensor if len(numbers) == len(tensor) else tensor.index_select(0, torch.tensor(numbers))


def _pad(rows: Sequence[Sequence[int]]) -> torch.Tensor:
    """The rows as one tensor of int64, with zeros after the shorter ones."""
    width = max(len(row) for row in rows)
    return torch.tensor([[*row, *[0] * (width - len(row))] for row in rows])
