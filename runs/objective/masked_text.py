"""Text with some tokens hidden, in pairs of segments or one by one."""

from __future__ import annotations

import numpy as np
import torch

from ..data.contract import IGNORED, Batch, Data
from .marked import Marked

HIDDEN, REPLACED = 0.8, 0.1  # of the tokens that are asked for; the others stay as they are


class MaskedText(Marked):
    """Rows as BERT reads them: some tokens are asked for, and most of these are hidden.

    [CLS] A [SEP] B [SEP], types 0 and 1: half of the time B goes on where A ends (label 0), else it is of another row
    (label 1). Without pairs [CLS] A [SEP]. In each row round(rate * ordinary tokens) tokens are asked for, at least one:
    of these 80 % show [MASK], 10 % another token, 10 % themselves. Special tokens are never asked for.

    Paper: Devlin 2018, arXiv:1810.04805 (section 3.1, appendix A.1-A.2). Differs: segments are stretches of tokens, not
        sentences, cut anywhere in the middle half of a row; all rows are full.
    Args:   data: text. rate: share of the tokens that are asked for. pairs: whether rows are pairs of segments.
    """

    def __init__(self, data: Data, *, rate: float, pairs: bool) -> None:
        super().__init__(data, marks=3 if pairs else 2, stretches=2 if pairs else 1)
        self.rate, self.pairs = rate, pairs
        self.ordinary = np.setdiff1d(np.arange(data.vocab_size), list(self.specials.values()))

    def count(self, seq_len: int) -> int:
        """How many tokens of a row are asked for."""
        return max(1, round(self.rate * (seq_len - self.marks)))

    def laid_out(self, batch: Batch, rng: np.random.Generator) -> Batch:
        text = batch.tokens.numpy()
        if not self.pairs:
            return self._hidden(self._row(text, [text.shape[1]] * len(text)), rng)
        b, n = len(text) // 2, text.shape[1]
        cut = rng.integers(n // 4, n - n // 4 + 1, b)  # tokens of A
        label = rng.integers(0, 2, b)
        elsewhere = (np.arange(n) >= cut[:, None]) & (label[:, None] == 1)
        row = self._row(np.where(elsewhere, text[b:], text[:b]), cut)
        types = (np.arange(n + 3) > cut[:, None] + 1).astype(np.int64)
        return self._hidden(row, rng)._replace(types=torch.from_numpy(types), labels=torch.from_numpy(label))

    def _row(self, text: np.ndarray, cut: np.ndarray | list[int]) -> np.ndarray:
        """(b, n) tokens -> (b, n + marks): [CLS] in front, [SEP] after the first ``cut`` tokens and at the end."""
        row = np.empty((len(text), text.shape[1] + self.marks), dtype=np.int64)
        row[:, 0] = self.specials["cls"]
        for line, tokens, end in zip(row, text, cut, strict=True):
            line[1 : end + 1], line[end + 1], line[end + 2 : -1] = tokens[:end], self.specials["sep"], tokens[end:]
        row[:, -1] = self.specials["sep"]
        return row

    def _hidden(self, row: np.ndarray, rng: np.random.Generator) -> Batch:
        open_to_all = ~np.isin(row, list(self.specials.values()))
        lot = np.where(open_to_all, rng.random(row.shape), 2)
        asked = open_to_all & (lot.argsort(1).argsort(1) < self.count(row.shape[1]))
        fate = rng.random(row.shape)
        other = rng.choice(self.ordinary, row.shape)
        shown = np.select([fate < HIDDEN, fate < HIDDEN + REPLACED], [self.specials["mask"], other], default=row)
        tokens, targets = np.where(asked, shown, row), np.where(asked, row, IGNORED)
        return Batch(torch.from_numpy(tokens), torch.from_numpy(targets))
