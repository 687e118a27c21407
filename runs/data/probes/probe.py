"""The base of all probes."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
import torch

from ..contract import IGNORED, Batch, Data
from ..draws import generator, held_out_generator


class Probe(Data):
    """A task that draws its rows: a frozen dataclass whose fields are the definition."""

    token_bytes = None

    @abstractmethod
    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        """Rows from a generator. held_out: for evaluation."""

    @property
    def sha256(self) -> str:
        return hashlib.sha256(repr(self).encode()).hexdigest()

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        return self.draw(generator(seed, step), batch_size=batch_size, seq_len=seq_len, held_out=False)

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        for i in range(n_batches):
            yield self.draw(held_out_generator(i), batch_size=batch_size, seq_len=seq_len, held_out=True)


def as_batch(tokens: np.ndarray, targets: np.ndarray, positions: np.ndarray | None = None) -> Batch:
    """(b, s) integers -> a batch."""
    contiguous = [torch.from_numpy(np.ascontiguousarray(array)) for array in (tokens, targets, positions) if array is not None]
    return Batch(*contiguous)


def no_targets(batch_size: int, seq_len: int) -> np.ndarray:
    """(b, s) targets of rows in which no token is scored yet."""
    return np.full((batch_size, seq_len), IGNORED, dtype=np.int64)


def require_length(task: str, seq_len: int, needed: int, why: str) -> None:
    """The one-line refusal of rows that are too short for the task."""
    if seq_len < needed:
        raise ValueError(f"data={task}: train.seq_len={seq_len} is too short, at least {needed} is needed ({why})")
