"""Rows with special tokens around them, as encoders read them."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from arch.init import stream

from ..data.contract import Batch, Data
from ..data.draws import HELD_OUT, generator
from ..tokenizer.contract import special_tokens

ROLES = ("pad", "cls", "sep", "mask")  # all of them wherever one is needed, so that encoders can pass on their weights


class WithSpecialTokens(Data):
    """Data whose rows get special tokens; a subclass says where.

    A special token is the tokenizer's own of that role; those that it lacks follow the vocabulary.

    Args:   data: rows of text. n_special: special tokens in a row. n_segments: rows of data that one row is made of.
    """

    token_bytes: Tensor | None = None  # only some of the tokens are targets

    def __init__(self, data: Data, *, n_special: int, n_segments: int = 1) -> None:
        self.inner, self.n_special, self.n_segments = data, n_special, n_segments
        self.tokenizer = getattr(data, "tokenizer", None)
        own = {} if self.tokenizer is None else self.tokenizer.specials
        self.specials = special_tokens(own, ROLES, data.vocab_size)

    @abstractmethod
    def insert(self, batch: Batch, rng: np.random.Generator, *, held_out: bool) -> Batch:
        """Rows with their special tokens. batch: (n_segments * b, n) tokens, n = seq_len - n_special. held_out: whether it is
        for evaluation."""

    @property
    def vocab_size(self) -> int:
        return max(self.inner.vocab_size, *(token + 1 for token in self.specials.values()))

    @property
    def chance(self) -> float | None:
        return None

    @property
    def sha256(self) -> str:
        return self.inner.sha256

    def check(self, *, seq_len: int) -> None:
        if seq_len < self.n_special + 8:
            raise ValueError(
                f"train.seq_len={seq_len}: {self.n_special} tokens of a row are special here, "
                f"so take {self.n_special + 8} at least"
            )
        self.inner.check(seq_len=seq_len - self.n_special)

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        n_rows, n = batch_size * self.n_segments, seq_len - self.n_special
        batch = self.inner.batch(seed=seed, step=step, batch_size=n_rows, seq_len=n)
        return self.insert(batch, generator(stream(seed, "marked"), step), held_out=False)  # the name decides the draws

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        n_rows, n = batch_size * self.n_segments, seq_len - self.n_special
        for i, batch in enumerate(self.inner.evaluation(n_batches=n_batches, batch_size=n_rows, seq_len=n)):
            yield self.insert(batch, generator(stream(HELD_OUT, "marked"), i), held_out=True)
