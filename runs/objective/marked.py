"""Rows with special tokens around them, as encoders read them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator

import numpy as np
from torch import Tensor

from arch.init import stream

from ..data.contract import Batch, Data
from ..data.draws import HELD_OUT, generator
from ..tokenizer.contract import special_tokens

ROLES = ("pad", "cls", "sep", "mask")  # all of them wherever one is needed, so that encoders can pass on their weights


class Marked(ABC):
    """Data whose rows are laid out anew around special tokens; a subclass says how.

    A special token is the tokenizer's own of that role; those that it lacks follow the vocabulary.

    Args:   data: rows that are stretches of text. marks: special tokens in a row. stretches: of data, that one row is made of.
    """

    token_bytes: Tensor | None = None  # some tokens only are asked for

    def __init__(self, data: Data, *, marks: int, stretches: int = 1) -> None:
        self.inner, self.marks, self.stretches = data, marks, stretches
        self.tokenizer = getattr(data, "tokenizer", None)
        own = {} if self.tokenizer is None else self.tokenizer.specials
        self.specials = special_tokens(own, ROLES, data.vocab_size)
        self.vocab_size = max(data.vocab_size, *(token + 1 for token in self.specials.values()))

    @abstractmethod
    def laid_out(self, batch: Batch, rng: np.random.Generator) -> Batch:
        """Stretches as rows with their marks. batch: (stretches * b, n) tokens, n = seq_len - marks."""

    @property
    def sha256(self) -> str:
        return self.inner.sha256

    @property
    def chance(self) -> float | None:
        return None

    def check(self, *, seq_len: int) -> None:
        if seq_len < self.marks + 8:
            raise ValueError(
                f"train.seq_len={seq_len}: {self.marks} tokens of a row are special here, so take {self.marks + 8} at least"
            )
        self.inner.check(seq_len=seq_len - self.marks)

    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        n_rows, n = batch_size * self.stretches, seq_len - self.marks
        batch = self.inner.batch(seed=seed, step=step, batch_size=n_rows, seq_len=n)
        return self.laid_out(batch, generator(stream(seed, "marked"), step))

    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        n_rows, n = batch_size * self.stretches, seq_len - self.marks
        for i, batch in enumerate(self.inner.evaluation(n_batches=n_batches, batch_size=n_rows, seq_len=n)):
            yield self.laid_out(batch, generator(stream(HELD_OUT, "marked"), i))
