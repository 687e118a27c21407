"""What the training loop knows about data, and nothing more."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

IGNORED = -100  # the target of a token where nothing is predicted


class Batch(NamedTuple):
    """One step's worth of rows. targets[:, t] is what is predicted at token t: in a text, token t + 1."""

    tokens: Tensor  # (b, s) int64
    targets: Tensor  # (b, s) int64, IGNORED where nothing is predicted
    positions: Tensor | None = None  # (b, s) int64, a 0 starts a document, padding is negative; None: 0..s-1
    types: Tensor | None = None  # (b, s) int64, which segment a token belongs to, where rows are made of several
    labels: Tensor | None = None  # (b,) int64, the class of each row, where rows are classified
    source: Tensor | None = None  # (b, n) int64, the text to read before ``tokens`` is written, where there is one
    source_positions: Tensor | None = None  # (b, n) int64, as positions


class Data(ABC):
    """A source of batches that are a pure function of the arguments: resuming needs no data state, arms can share draws."""

    @property
    @abstractmethod
    def vocab_size(self) -> int:
        """How many different tokens there are; found without reading the text."""

    @property
    @abstractmethod
    def sha256(self) -> str:
        """Of the text, or of the definition where there is no text. Runs with different values are not comparable."""

    @property
    @abstractmethod
    def token_bytes(self) -> Tensor | None:
        """(vocab_size,) int64 UTF-8 bytes of each token, for bits per byte; None where tokens are no text."""

    @property
    @abstractmethod
    def chance(self) -> float | None:
        """Accuracy of the best answer that never looks at the row, on the held-out batches; None for text."""

    @abstractmethod
    def check(self, *, seq_len: int) -> None:
        """Read what has to be read and raise, in one line, whatever would stop training on rows of seq_len tokens."""

    @abstractmethod
    def batch(self, *, seed: int, step: int, batch_size: int, seq_len: int) -> Batch:
        """The training batch of this step, the same on every call and in every process."""

    @abstractmethod
    def evaluation(self, *, n_batches: int, batch_size: int, seq_len: int) -> Iterator[Batch]:
        """The held-out batches, the same for every arm and every seed."""
