"""Phrase boosting: phrases → boosting trees of NeMo's in a search; and the search in one script only.

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

from parakeet_stt.engines.cpu.search import make_search
from parakeet_stt.engines.steps.pieces import Pieces
from parakeet_stt.engines.steps.search import GraphSearch
from parakeet_stt.text.alignment import WORD_START
from parakeet_stt.text.phrases import Phrases, spelling_variants, split_script

WEIGHT = 0.5  # of a tree's scores beside the network's logits; measured in docs/benchmarks.md
MAX_TREES = 64  # cached for callers who come again; a batch may need more
MOST_TREES = MAX_TREES + 1024  # with those of the largest batch that can be set
SCRIPTS = ("latin", "cyrillic", "greek")
LEFT_OUT = -1e4  # added to a score; float16 has it


class ScriptedSearch(GraphSearch):
    """NeMo's search with a tree for each item, in which a tree may have a script: other pieces are left out.

    As with a tree's scores, the network decides first that there is a token, and then it is one of those that are left.
    Both tensors stay where they are, as CUDA graphs need it. masks: of each script, the first of none, shape
    (scripts + 1, tokens). scripts: number of the script of each tree, the first of none, shape (trees + 1,).
    """

    masks: torch.Tensor | None = None
    scripts: torch.Tensor | None = None

    def advance_fusion_models(
        self, fusion_states_list: list[torch.Tensor], multi_biasing_ids: torch.Tensor | None, float_dtype: torch.dtype
    ) -> tuple[list[torch.Tensor], list[torch.Tensor]]:
        """The scores to add in the next step. Called by NeMo, 3.0.0."""
        scores, states = super().advance_fusion_models(fusion_states_list, multi_biasing_ids, float_dtype)
        if self.masks is not None and self.scripts is not None and multi_biasing_ids is not None:
            scores[0] = scores[0] + self.masks[self.scripts[multi_biasing_ids + 1]].to(float_dtype)
        return scores, states


class Boosting:
    """A search of its own beside the plain one, so that batches without phrases cost nothing more."""

    def __init__(self, plain: Any, tokenizer: Any, pieces: Pieces, *, weight: float = WEIGHT) -> None:
        """plain: the model's decoding computer. tokenizer, pieces: the model's."""
        self._tokenizer = tokenizer
        self._pieces = pieces
        self._weight = weight
        self.computer = ScriptedSearch.like(plain, enable_per_stream_biasing=True)
        device = next(plain.joint.parameters()).device
        self._search = make_search(self.computer, device)
        masks = [pieces.in_script(script) for script in SCRIPTS]
        if np.count_nonzero(pieces.is_text & ~masks[0]) > 1:  # besides `UNKNOWN`: there are scripts besides the first
            left_out = torch.from_numpy(~np.stack([np.ones(len(pieces), bool), *masks]))
            self.computer.masks = torch.zeros(left_out.shape).masked_fill(left_out, LEFT_OUT).to(device)
            self.computer.scripts = torch.zeros(MOST_TREES + 1, dtype=torch.long, device=device)
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
        return self._search(x=encoded, out_len=frames, prev_batched_state=before, multi_biasing_ids=trees)

    def _tree(self, phrases: Phrases) -> int:
        if phrases not in self._trees:
            plain, script = split_script(phrases)
            variants = {spelling for phrase in plain for spelling in spelling_variants(phrase)}
            # A spelling with an unknown piece would prefer everything that can't be spelled.
            known = sorted(one for one in variants if self._pieces.can_spell(self._tokenizer.text_to_ids(one)))
            weight = self._weight if known else 0.0
            if not known and (script is None or self.computer.scripts is None):
                return -1
            known = known or [self._pieces[int(np.flatnonzero(self._pieces.is_text)[-1])].replace(WORD_START, "")]
            config = BoostingTreeModelConfig(key_phrases_list=known)
            tree = GPUBoostingTreeModel.from_config(config, tokenizer=self._tokenizer)
            model = self.computer.biasing_multi_model
            tree = tree.to(model.all_arcs_weights.device)
            number = self._trees[phrases] = model.add_model(tree, alpha=weight)
            if self.computer.scripts is not None:
                self.computer.scripts[number + 1] = SCRIPTS.index(script) + 1 if script in SCRIPTS else 0
        self._trees.move_to_end(phrases)
        return self._trees[phrases]
