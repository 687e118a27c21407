"""What turns text into tokens and back."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence

import numpy as np


class Tokenizer(ABC):
    """Text to tokens and back. It writes no files: the owner of the text stores what was learnt from it."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many tokens there are, fixed before training."""

    @property
    @abstractmethod
    def settings(self) -> str:
        """All that decides the tokens of a text, apart from the texts that it is trained on."""

    @property
    @abstractmethod
    def token_bytes(self) -> np.ndarray:
        """(vocab_size,) int64: the UTF-8 bytes that each token stands for; for a text on which it is lossless they add up."""

    @property
    @abstractmethod
    def specials(self) -> dict[str, int]:
        """The special tokens that there are, by role: pad, bos, eos, cls, sep, mask, unk."""

    @abstractmethod
    def fit(self, texts: Iterable[str]) -> None:
        """Train on texts; the same texts in the same order always give the same tokens."""

    @abstractmethod
    def state(self) -> bytes:
        """The trained state, for restore in another process."""

    @abstractmethod
    def restore(self, state: bytes) -> None:
        """Take over a state, without training."""

    @abstractmethod
    def is_lossless(self, text: str) -> bool:
        """Whether its tokens decode to this text and their bytes are its bytes: otherwise bits per byte are undefined."""

    @abstractmethod
    def encode(self, text: str) -> np.ndarray:
        """Text -> (n,) unsigned integers of the smallest type that holds the vocabulary."""

    @abstractmethod
    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        """Tokens -> text; bytes that form no character, as at the edges of a sample, become U+FFFD."""


def special_tokens(own: Mapping[str, int], roles: Sequence[str], vocab_size: int) -> dict[str, int]:
    """The special token of each role: the tokenizer's own; those that it lacks follow the vocabulary, in the order of roles."""
    new = [role for role in roles if role not in own]
    return {role: own[role] if role in own else vocab_size + new.index(role) for role in roles}
