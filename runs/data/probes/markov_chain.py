"""A source whose next-token probabilities are known."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..contract import Batch
from .probe import Probe, as_batch, require_length

LARGEST = 4096  # vocabulary: all its pairs are laid out


@dataclass(frozen=True, kw_only=True)
class MarkovChain(Probe):
    """Predict the next token of a chain: what can be known of it are its probabilities, a row of a matrix.

    x_0 ~ stationary, x_{t+1} ~ P[x_t], P[i] ~ Dirichlet(concentration, ...)

    Every token of a row is scored. The matrix is fixed, for every seed of a run.

    Paper: Shannon 1948 (section 4, the source as a Markov process). Differs: the matrix is drawn.
    Args:   vocab_size: tokens. concentration: of each row's Dirichlet; 1 = all rows are as likely, below 1 = few tokens have
            most of a row. matrix_seed: which matrix.
    Raises: ValueError: fewer than 2 tokens, or a concentration so low that the chain comes apart.
    """

    vocab_size: int = 32
    concentration: float = 0.3
    matrix_seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.vocab_size <= LARGEST:
            raise ValueError(f"vocab_size={self.vocab_size}: at least 2 and at most {LARGEST} is expected")
        if not self.concentration >= 0.1:
            raise ValueError(f"concentration={self.concentration}: at least 0.1 is expected")
        if self.matrix_seed < 0:
            raise ValueError(f"matrix_seed={self.matrix_seed}: at least 0 is expected")

    @cached_property
    def transitions(self) -> np.ndarray:
        """(vocab_size, vocab_size) float64: row i holds the probabilities of what follows token i."""
        rng = np.random.Generator(np.random.Philox(key=self.matrix_seed))
        return rng.dirichlet(np.full(self.vocab_size, self.concentration), size=self.vocab_size)

    @cached_property
    def stationary(self) -> np.ndarray:
        """(vocab_size,) how often each token comes: p P = p, sum p = 1."""
        balance = np.vstack([self.transitions.T - np.eye(self.vocab_size), np.ones(self.vocab_size)])
        found, *_ = np.linalg.lstsq(balance, np.append(np.zeros(self.vocab_size), 1.0), rcond=None)
        return found.clip(min=0) / found.clip(min=0).sum()

    @property
    def chance(self) -> float:
        return float(self.stationary.max())

    def check(self, *, seq_len: int) -> None:
        require_length("markov", seq_len, 1, "a token")

    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        self.check(seq_len=seq_len)
        below, first = self.transitions.cumsum(axis=1)[:, :-1], self.stationary.cumsum()[:-1]
        draws = rng.random((seq_len + 1, batch_size, 1))
        row = np.empty((batch_size, seq_len + 1), dtype=np.int64)
        row[:, 0] = (draws[0] >= first).sum(axis=1)
        for t in range(seq_len):
            row[:, t + 1] = (draws[t + 1] >= below[row[:, t]]).sum(axis=1)
        return as_batch(row[:, :-1], row[:, 1:])
