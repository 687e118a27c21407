"""Selective copying."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import Batch
from ..draws import distinct
from .probe import Probe, as_batch, no_targets, require_length


@dataclass(frozen=True, kw_only=True)
class SelectiveCopying(Probe):
    """Remember the few data tokens among the noise, and repeat them in order at the markers.

    Tokens: 0 noise, 1 .. V - 2 data, V - 1 marker. The last n_data tokens of a row are markers, each of which has
    one data token for its target; the data lie at random positions in the train.seq_len - n_data tokens before them.

    Paper: Gu and Dao 2023, arXiv:2312.00752 (section 4.1.1, appendix E.1: 4096 tokens, 16 of data, vocabulary 16).
    Differs: the marker is one of the 16 tokens, the paper leaves that open; the markers are the last of the seq_len tokens.
    Args:   vocab_size: tokens, noise and marker included. n_data: data tokens in a row.
    Raises: ValueError: no data token left beside noise and marker, or a row shorter than 2 n_data.
    """

    vocab_size: int = 16
    n_data: int = 16

    def __post_init__(self) -> None:
        if self.vocab_size < 4:
            raise ValueError(f"vocab_size={self.vocab_size}: at least 4 is expected: noise, marker and two data tokens")
        if self.n_data < 1:
            raise ValueError(f"n_data={self.n_data}: at least 1 is expected")

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - 2)

    def check(self, *, seq_len: int) -> None:
        require_length("selective_copy", seq_len, 2 * self.n_data, f"{self.n_data} data tokens and as many markers")

    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        self.check(seq_len=seq_len)
        context = seq_len - self.n_data
        data = rng.integers(1, self.vocab_size - 1, size=(batch_size, self.n_data))
        positions = np.sort(distinct(rng, rows=batch_size, count=self.n_data, below=context), axis=1)
        tokens = np.zeros((batch_size, seq_len), dtype=np.int64)
        np.put_along_axis(tokens, positions, data, axis=1)
        tokens[:, context:] = self.vocab_size - 1
        targets = no_targets(batch_size, seq_len)
        targets[:, context:] = data
        return as_batch(tokens, targets)
