"""A tokenizer that goes from one text to another and learns nothing more."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from .contract import Tokenizer


class Frozen:
    """Tokens learnt from an earlier text, for a model that knows them already.

    Args:   tokenizer: it has learnt, or had nothing to learn; here it learns no more.
    """

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer = tokenizer

    @property
    def vocab_size(self) -> int:
        return self.tokenizer.vocab_size

    @property
    def settings(self) -> str:
        return f"{self.tokenizer.settings} as learnt, {hashlib.sha256(self.state()).hexdigest()}"

    @property
    def token_bytes(self) -> np.ndarray:
        return self.tokenizer.token_bytes

    @property
    def specials(self) -> dict[str, int]:
        return self.tokenizer.specials

    def fit(self, texts: Iterable[str]) -> None:
        """It has learnt."""

    def state(self) -> bytes:
        return self.tokenizer.state()

    def restore(self, state: bytes) -> None:
        """What it knows is part of its settings: there is nothing else to know again."""

    def spells(self, text: str) -> bool:
        return self.tokenizer.spells(text)

    def encode(self, text: str) -> np.ndarray:
        return self.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self.tokenizer.decode(tokens)
