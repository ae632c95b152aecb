"""Phrase boosting: phrases → boosting trees in a search of NeMo's.

Each item of a batch has a tree of its own, or none. NeMo's model of many trees adds to the scores of the tokens that
continue along an item's tree, once the network has decided that there is a token. So an item without a tree is decoded
as without boosting (arXiv:2508.07014 describes the trees).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from nemo.collections.asr.parts.context_biasing.boosting_graph_batched import (
    BoostingTreeModelConfig,
    GPUBoostingTreeModel,
)
from nemo.collections.asr.parts.submodules.transducer_decoding.tdt_label_looping import (
    GreedyBatchedTDTLabelLoopingComputer,
)

from parakeet_stt.engines.steps.pieces import Pieces
from parakeet_stt.text.phrases import Phrases, spelling_variants

WEIGHT = 0.5  # of a tree's scores beside the network's logits; measured in docs/benchmarks.md
MAX_TREES = 64  # cached for callers who come again; a batch may need more


class Boosting:
    """A search of its own beside the plain one, so that batches without phrases cost nothing more."""

    def __init__(self, plain: Any, tokenizer: Any, pieces: Pieces, *, weight: float = WEIGHT) -> None:
        """plain: the model's decoding computer. tokenizer, pieces: the model's."""
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._weight = weight
        self.computer = GreedyBatchedTDTLabelLoopingComputer(
            decoder=plain.decoder,
            joint=plain.joint,
            blank_index=plain._blank_index,
            durations=plain.durations.tolist(),
            max_symbols_per_step=plain.max_symbols,
            allow_cuda_graphs=plain.allow_cuda_graphs,
            enable_per_stream_biasing=True,
        )
        self._trees: OrderedDict[Phrases, int] = OrderedDict()  # least recently used first

    def build_trees(self, phrases: Sequence[Phrases]) -> npt.NDArray[np.int64]:
        """The tree of each item, shape (batch,), -1 for none. Not inside `torch.inference_mode`.

        A new tree is copied to the device, and the host waits for that; trees that are there cost nothing.
        """
        numbers = [self._tree(own) if own else -1 for own in phrases]
        while len(self._trees) > max(MAX_TREES, len(set(phrases))):
            self.computer.biasing_multi_model.remove_model(self._trees.popitem(last=False)[1])
        return np.array(numbers, np.int64)

    def search(self, encoded: torch.Tensor, frames: torch.Tensor, trees: torch.Tensor, before: Any = None) -> Any:
        """As the plain search, with the trees of `build_trees`, on the device. before: NeMo's state so far."""
        return self.computer(x=encoded, out_len=frames, prev_batched_state=before, multi_biasing_ids=trees)

    def _tree(self, phrases: Phrases) -> int:
        if phrases not in self._trees:
            variants = {spelling for phrase in phrases for spelling in spelling_variants(phrase)}
            # A spelling with an unknown piece would prefer everything that can't be spelled.
            known = sorted(one for one in variants if self._pieces.can_spell(self._tokenizer.text_to_ids(one)))
            if not known:
                return -1
            config = BoostingTreeModelConfig(key_phrases_list=known)
            tree = GPUBoostingTreeModel.from_config(config, tokenizer=self._tokenizer)
            model = self.computer.biasing_multi_model
            tree = tree.to(model.all_arcs_weights.device)
            self._trees[phrases] = model.add_model(tree, alpha=self._weight)
        self._trees.move_to_end(phrases)
        return self._trees[phrases]
