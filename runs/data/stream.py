"""Batches cut out of long arrays of tokens, for texts and token files alike."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator, Sequence

import numpy as np
import torch

from .contract import Batch, Data
from .draws import generator


class TokenStream:
    """Arrays of tokens, in memory or mapped from disk, out of which windows are cut; no window crosses two arrays."""

    def __init__(self, parts: Sequence[np.ndarray]) -> None:
        self.parts = list(parts)

    def __len__(self) -> int:
        return sum(len(part) for part in self.parts)

    def ends(self, length: int) -> np.ndarray:
        """How many windows of this length start in the parts up to and including each one."""
        return np.cumsum([max(len(part) - length + 1, 0) for part in self.parts])

    def windows(self, starts: np.ndarray, length: int) -> np.ndarray:
        """(n,) numbers of windows -> (n, length) tokens."""
        ends = self.ends(length)
        which = np.searchsorted(ends, starts, side="right")
        windows = np.empty((len(starts), length), dtype=np.int64)
        for i in np.unique(which):
            rows = which == i
            local = starts[rows] - (ends[i - 1] if i else 0)
            windows[rows] = self.parts[i][local[:, None] + np.arange(length)]
        return windows


class StreamData(Data):
    """Data that is one long stream of tokens to train on and one that is held out."""

    chance: float | None = None

    @property
    @abstractmethod
    def train(self) -> TokenStream: ...

    @property
    @abstractmethod
    def validation(self) -> TokenStream: ...

    @property
    @abstractmethod
    def origin(self) -> str:
        """Where the tokens come from, as an error names it."""

    def check(self, *, seq_len: int) -> None:
        for part, stream in (("training", self.train), ("validation", self.validation)):
            if stream.ends(seq_len + 1)[-1] < 1:
                longest = max(len(tokens) for tokens in stream.parts)
                raise ValueError(
                    f"{self.origin}: the {part} part has {longest} tokens in one piece, but one sequence takes "
                    f"train.seq_len + 1 = {seq_len + 1}: give a longer text or a smaller train.seq_len"
                )

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        """batch_size windows of the training part, each start equally likely."""
        n_starts = self.train.ends(seq_len + 1)[-1]
        if n_starts < 1:
            self.check(seq_len=seq_len)
        starts = generator(seed, step).integers(0, n_starts, size=batch_size)
        return next_token(self.train.windows(starts, seq_len + 1))

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """n_batches * batch_size windows at even distances over the whole validation part."""
        n_starts = self.validation.ends(seq_len + 1)[-1]
        if n_starts < 1:
            self.check(seq_len=seq_len)
        starts = np.linspace(0, n_starts - 1, n_batches * batch_size).astype(np.int64)
        for rows in starts.reshape(n_batches, batch_size):
            yield next_token(self.validation.windows(rows, seq_len + 1))


def next_token(windows: np.ndarray) -> Batch:
    """(b, s + 1) tokens -> a batch whose targets are each token's next one."""
    tokens, targets = (torch.from_numpy(np.ascontiguousarray(part)) for part in (windows[:, :-1], windows[:, 1:]))
    return Batch(tokens, targets)
