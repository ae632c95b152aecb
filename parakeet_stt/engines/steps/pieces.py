"""The tokenizer's pieces: which of them are text, and which are signs to the model."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from parakeet_stt.text.alignment import UNKNOWN

# `<|en|>`, `<pad>`: a tokenizer that was made for several tasks has hundreds, and names none of them as control pieces.
_SIGN = re.compile(r"▁?<(\|.*\||[a-z_]+)>")


def _is_in(letter: str, script: str) -> bool:
    return not letter.isalpha() or unicodedata.name(letter, "").startswith(script.upper())


class Pieces(Sequence[str]):
    """The piece of each token id; the one for what the tokenizer can't spell is `UNKNOWN`, whatever its own name is.

    is_text: of each id, shape (pieces,): whether it may be in a text. `UNKNOWN` may: it stands for a letter.
    """

    def __init__(self, tokenizer: Any) -> None:
        """tokenizer: NeMo's, over SentencePiece."""
        spelling = tokenizer.tokenizer
        ids = range(tokenizer.vocab_size)
        self.unknown = int(spelling.unk_id())
        self._pieces: list[str] = list(tokenizer.ids_to_tokens(list(ids)))
        self.is_text: npt.NDArray[np.bool_] = np.array(
            [
                not (spelling.is_control(number) or spelling.is_unused(number) or _SIGN.fullmatch(self._pieces[number]))
                for number in ids
            ],
            bool,
        )
        if 0 <= self.unknown < len(self._pieces):
            self._pieces[self.unknown] = UNKNOWN
            self.is_text[self.unknown] = True

    def __len__(self) -> int:
        return len(self._pieces)

    def __getitem__(self, index: Any) -> Any:
        return self._pieces[index]

    def in_script(self, script: str) -> npt.NDArray[np.bool_]:
        """Of each id, whether it is text without letters of another script. The unknown letter is taken for Russian."""
        own = np.array([all(_is_in(c, script) for c in piece) for piece in self._pieces], bool)
        found: npt.NDArray[np.bool_] = self.is_text & own
        if 0 <= self.unknown < len(found):
            found[self.unknown] = script == "cyrillic"
        return found

    def can_spell(self, ids: Sequence[int]) -> bool:
        """Whether these are text without anything unknown; False for none."""
        return bool(ids) and all(number != self.unknown and self.is_text[number] for number in ids)
