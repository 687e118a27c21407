"""Multi-query associative recall."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ..contract import Batch
from ..draws import distinct
from .probe import Probe, as_batch, no_targets, require_length


@dataclass(frozen=True, kw_only=True)
class MQAR(Probe):
    """Key-value pairs, then each key once more, whose value is to be recalled.

    k1 v1 ... kK vK, then filler with key k at position 2K + 2g and its value as the target there;
    the gaps g differ and are drawn one after the other with p(g) ~ (g + 1)^(power - 1).
    Keys are 1 .. V/2 - 1, values V/2 .. V - 1, filler 0; a row takes train.seq_len tokens.

    Paper: Arora et al. 2023, arXiv:2312.04927 (section 3.2 and appendix; Zoology's generator). Differs: nothing.
    Published settings (seq_len, pairs): (64, 4), (128, 8), (256, 16), (512, 64).
    Args:   vocab_size: tokens, V. pairs: key-value pairs in a row, K. power: a; 1 = uniform gaps, near 0 = early queries.
            random_non_queries: filler drawn from all tokens, as in later versions of Zoology; the paper has 0.
    Raises: ValueError: not enough keys for the pairs, power not positive, or a row shorter than 4 tokens a pair.
    """

    vocab_size: int = 8192
    pairs: int = 8
    power: float = 0.01
    random_non_queries: bool = False

    def __post_init__(self) -> None:
        if not 1 <= self.pairs <= self.vocab_size // 2 - 1:
            keys = max(self.vocab_size // 2 - 1, 0)
            raise ValueError(f"pairs={self.pairs}: from 1 to vocab_size // 2 - 1 = {keys}, since a key occurs once")
        if self.power <= 0:
            raise ValueError(f"power={self.power}: more than 0 is expected (0.01 in the paper, 1 = uniform)")

    @property
    def chance(self) -> float:
        return 1 / (self.vocab_size - self.vocab_size // 2)

    def check(self, *, seq_len: int) -> None:
        require_length("mqar", seq_len, 4 * self.pairs, f"4 for each of the {self.pairs} pairs; see also data.pairs")

    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        self.check(seq_len=seq_len)
        half, context = self.vocab_size // 2, 2 * self.pairs
        keys = 1 + distinct(rng, rows=batch_size, count=self.pairs, below=half - 1)
        values = half + distinct(rng, rows=batch_size, count=self.pairs, below=self.vocab_size - half)
        tokens = np.zeros((batch_size, seq_len), dtype=np.int64)
        tokens[:, 0:context:2], tokens[:, 1:context:2] = keys, values

        # the order of log p + Gumbel noise is that of draws from p without replacement
        space = (seq_len - context) // 2
        score = (self.power - 1) * np.log(np.arange(1, space + 1)) + rng.gumbel(size=(batch_size, space))
        positions = context + 2 * np.argsort(-score, axis=1)[:, : self.pairs]  # (b, pairs)
        np.put_along_axis(tokens, positions, keys, axis=1)
        targets = no_targets(batch_size, seq_len)
        np.put_along_axis(targets, positions, values, axis=1)
        if self.random_non_queries:
            filler = tokens == 0
            tokens[filler] = rng.integers(0, self.vocab_size, size=np.count_nonzero(filler))
        return as_batch(tokens, targets)
