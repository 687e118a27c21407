"""Text with some tokens masked, in pairs of segments or one by one."""

from __future__ import annotations

import numpy as np
import torch

from ..data.contract import IGNORED, Batch, Data
from .special_tokens import WithSpecialTokens

MASKED, REPLACED = 0.8, 0.1  # of the tokens that are predicted; the others stay as they are


class MaskedText(WithSpecialTokens):
    """Rows as BERT reads them: some tokens are predicted, and most of these are masked.

    [CLS] A [SEP] B [SEP], types 0 and 1: half of the time B continues A (label 0), else it is from another row
    (label 1). Without pairs [CLS] A [SEP]. In each row round(rate * ordinary tokens) tokens are predicted, at least one:
    80 % of them are replaced by [MASK], 10 % by another token, 10 % stay. Special tokens are never predicted.

    Paper: Devlin 2018, arXiv:1810.04805 (section 3.1, appendix A.1-A.2). Differs: segments are runs of tokens, not
        sentences, cut anywhere in the middle half of a row; all rows are full.
    Args:   data: text. rate: share of the tokens that are predicted; held_out_rate: of those of held-out rows, None = the same.
            pairs: whether rows are pairs of segments.
    """

    def __init__(self, data: Data, *, rate: float, pairs: bool, held_out_rate: float | None = None) -> None:
        super().__init__(data, n_special=3 if pairs else 2, n_segments=2 if pairs else 1)
        self.rate, self.pairs = rate, pairs
        self.held_out_rate = rate if held_out_rate is None else held_out_rate
        self.ordinary = np.setdiff1d(np.arange(data.vocab_size), list(self.specials.values()))

    def count(self, seq_len: int, held_out: bool) -> int:
        """How many tokens of a row are predicted."""
        return max(1, round((self.held_out_rate if held_out else self.rate) * (seq_len - self.n_special)))

    def insert(self, batch: Batch, rng: np.random.Generator, *, held_out: bool) -> Batch:
        text = batch.tokens.numpy()
        if not self.pairs:
            return self._masked(self._row(text, [text.shape[1]] * len(text)), rng, held_out)
        b, n = len(text) // 2, text.shape[1]
        cut = rng.integers(n // 4, n - n // 4 + 1, b)  # tokens of A
        label = rng.integers(0, 2, b)
        elsewhere = (np.arange(n) >= cut[:, None]) & (label[:, None] == 1)
        row = self._row(np.where(elsewhere, text[b:], text[:b]), cut)
        types = (np.arange(n + 3) > cut[:, None] + 1).astype(np.int64)
        return self._masked(row, rng, held_out)._replace(types=torch.from_numpy(types), labels=torch.from_numpy(label))

    def _row(self, text: np.ndarray, cut: np.ndarray | list[int]) -> np.ndarray:
        """(b, n) tokens -> (b, n + n_special): [CLS] in front, [SEP] after the first ``cut`` tokens and at the end."""
        row = np.empty((len(text), text.shape[1] + self.n_special), dtype=np.int64)
        row[:, 0] = self.specials["cls"]
        for line, tokens, end in zip(row, text, cut, strict=True):
            line[1 : end + 1], line[end + 1], line[end + 2 : -1] = tokens[:end], self.specials["sep"], tokens[end:]
        row[:, -1] = self.specials["sep"]
        return row

    def _masked(self, row: np.ndarray, rng: np.random.Generator, held_out: bool) -> Batch:
        ordinary = ~np.isin(row, list(self.specials.values()))
        order = np.where(ordinary, rng.random(row.shape), 2)
        predicted = ordinary & (order.argsort(1).argsort(1) < self.count(row.shape[1], held_out))
        draw = rng.random(row.shape)
        other = rng.choice(self.ordinary, row.shape)
        shown = np.select([draw < MASKED, draw < MASKED + REPLACED], [self.specials["mask"], other], default=row)
        tokens, targets = np.where(predicted, shown, row), np.where(predicted, row, IGNORED)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))
