"""Induction heads."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import Batch
from .probe import Probe, as_batch, no_targets, require_length


@dataclass(frozen=True, kw_only=True)
class InductionHeads(Probe):
    """Which token followed the special one at its earlier occurrence? Predicted once, at the end of the row.

    Random tokens 0 .. V - 2, the special token V - 1 once among them and once at the last position, the only one scored.
    A row takes train.seq_len tokens: train at 256, then score at any length.

    Paper: Gu and Dao 2023, arXiv:2312.00752 (section 4.1.2: vocabulary 16, length 256), after Fu et al. 2022,
    arXiv:2212.14052. Differs: the special token is one of the 16, the paper leaves that open.
    Args:   vocab_size: tokens, the special one included.
    Raises: ValueError: fewer than 3 tokens, or a row shorter than 3.
    """

    vocab_size: int = 16

    def __post_init__(self) -> None:
        if self.vocab_size < 3:
            raise ValueError(f"vocab_size={self.vocab_size}: at least 3 is expected: the special token and two others")

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 1)

    def check(self, *, seq_len: int) -> None:
        require_length("induction", seq_len, 3, "the special token, what follows it, and the special token again")

    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        self.check(seq_len=seq_len)
        special, row = self.vocab_size - 1, np.arange(batch_size)
        tokens = rng.integers(0, special, size=(batch_size, seq_len))
        index = rng.integers(0, seq_len - 2, size=batch_size)
        tokens[row, index] = tokens[:, -1] = special
        targets = no_targets(batch_size, seq_len)
        targets[:, -1] = tokens[row, index + 1]
        return as_batch(tokens, targets)
