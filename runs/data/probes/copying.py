"""Copying strings of varying length."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import IGNORED, Batch
from .probe import Probe, as_batch, require_length


@dataclass(frozen=True, kw_only=True)
class Copying(Probe):
    """Repeat a string of letters, then stop.

    $ letters | letters .    scored: the repetition and the full stop.
    Tokens: letters 0 .. letters - 1, then $ | . and the padding *. Training rows of train.seq_len tokens are packed with
    examples, the last one cut off and not scored; a held-out row holds one example, and padding at position -1.

    Paper: Jelassi et al. 2024, arXiv:2402.01032 (section 3.1; strings of 5 to 20 letters in rows of 220 in the authors' code).
    Differs: nothing.
    Args:   letters: in the alphabet. min_length, max_length: letters of a string in training.
            test_min_length, test_max_length: of a held-out one, to measure length generalisation; None: as in training.
            documents: whether each example of a training row is a document of its own, its positions counted from 0: then no
            position behind 2 max_length + 2 was ever trained. False: a row counts through, as in the authors' code.
    Raises: ValueError: a shortest string longer than the longest, or a row that does not hold the longest example.
    """

    letters: int = 26
    min_length: int = 5
    max_length: int = 20
    test_min_length: int | None = None
    test_max_length: int | None = None
    documents: bool = False

    def __post_init__(self) -> None:
        if self.letters < 2:
            raise ValueError(f"letters={self.letters}: at least 2 are expected")
        for kind, (low, high) in (("", self.lengths(held_out=False)), ("test_", self.lengths(held_out=True))):
            if not 1 <= low <= high:
                raise ValueError(
                    f"{kind}min_length={low}, {kind}max_length={high}: 1 <= {kind}min_length <= {kind}max_length is expected"
                )

    def lengths(self, *, held_out: bool) -> tuple[int, int]:
        """The shortest and the longest string."""
        low, high = (self.test_min_length, self.test_max_length) if held_out else (None, None)
        return self.min_length if low is None else low, self.max_length if high is None else high

    @property
    def vocab_size(self) -> int:
        return self.letters + 4

    @property
    def chance(self) -> float:
        mean = sum(self.lengths(held_out=True)) / 2
        return max(1, mean / self.letters) / (mean + 1)  # always the full stop, or always the same letter

    def check(self, *, seq_len: int) -> None:
        longest = max(self.lengths(held_out=False)[1], self.lengths(held_out=True)[1])
        require_length("copy", seq_len, 2 * longest + 3, f"twice the longest string, {longest}, and three separators")

    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        self.check(seq_len=seq_len)
        start, again, stop, padding = range(self.letters, self.vocab_size)
        low, high = self.lengths(held_out=held_out)
        examples = 1 if held_out else seq_len // (2 * low + 3) + 1
        length = rng.integers(low, high + 1, size=(batch_size, examples))
        end = np.cumsum(2 * length + 3, axis=1)  # (b, examples) position after the last one of each

        position = np.arange(seq_len + 1)
        which = (end[:, :, None] <= position).sum(axis=1)  # (b, s + 1) the example that a token belongs to
        last = np.minimum(which, examples - 1)
        n, after = np.take_along_axis(length, last, axis=1), np.take_along_axis(end, last, axis=1)
        offset = position - (after - 2 * n - 3)  # 0 at the $

        drawn = rng.integers(0, self.letters, size=(batch_size, seq_len + 1))
        copied = np.take_along_axis(drawn, np.maximum(position - n - 1, 0), axis=1)
        signs = [which == examples, offset == 0, offset <= n, offset == n + 1, offset <= 2 * n + 1]
        row = np.select(signs, [padding, start, drawn, again, copied], default=stop)
        scored = (offset >= n + 2) & (which < examples) & (after <= seq_len + 1)
        counted = np.where(which < examples, offset, -1)[:, :-1] if held_out or self.documents else None
        return as_batch(row[:, :-1], np.where(scored, row, IGNORED)[:, 1:], counted)
