"""Text as its UTF-8 bytes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from .contract import Tokenizer


class Bytes(Tokenizer):
    """One token for each byte of the UTF-8 text: no training, nothing to install, 256 tokens."""

    vocab_size = 256
    settings = "bytes"

    @property
    def token_bytes(self) -> np.ndarray:
        return np.ones(256, dtype=np.int64)

    @property
    def specials(self) -> dict[str, int]:
        return {}

    def fit(self, texts: Iterable[str]) -> None:
        """There is nothing to train."""

    def state(self) -> bytes:
        return b""

    def restore(self, state: bytes) -> None:
        """There is no state."""

    def is_lossless(self, text: str) -> bool:
        return True

    def encode(self, text: str) -> np.ndarray:
        return np.frombuffer(text.encode("utf-8"), dtype=np.uint8)

    def decode(self, tokens: Sequence[int] | np.ndarray) -> str:
        return np.asarray(tokens).astype(np.uint8).tobytes().decode("utf-8", errors="replace")
