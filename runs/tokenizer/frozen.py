"""A tokenizer trained on one text and used on another."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import numpy as np

from .contract import Tokenizer


class Frozen(Tokenizer):
    """The tokens of an earlier text, for a model that was trained on them.

    Args:   tokenizer: trained, or in need of no training; it is not trained again.
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
        """It is trained already."""

    def state(self) -> bytes:
        return self.tokenizer.state()

    def restore(self, state: bytes) -> None:
        """Its state is part of its settings: there is no other."""

    def is_lossless(self, text: str) -> bool:
        return self.tokenizer.is_lossless(text)

    def encode(self, text: str) -> np.ndarray:
        return self.tokenizer.encode(text)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return self.tokenizer.decode(tokens)
