"""Modular addition."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np

from ..contract import Batch
from .probe import Probe, as_batch, no_targets, require_length

PROBLEM = 3  # tokens
LARGEST = 4096  # modulus: all its pairs are laid out


@dataclass(frozen=True, kw_only=True)
class ModularAddition(Probe):
    """Learn the table of a + b mod p from some of its entries: does a model generalise to the others?

    a b =    scored: at the =, whose target is (a + b) mod p.
    Tokens: numbers 0 .. p - 1 and the sign p. A row of train.seq_len tokens holds seq_len // 3 problems, each a document of
    its own (positions start again at 0). Which pairs are held out is fixed, for every seed of a run.

    Paper: Power et al. 2022, arXiv:2201.02177 (section 3 and appendix A.1: p = 97). Differs: no sign between a and b.
    Args:   modulus: p. train_share: share of the p^2 pairs to train on. split_seed: which ones.
    Raises: ValueError: a modulus below 2, a share that leaves either part empty, or a row shorter than 3.
    """

    modulus: int = 97
    train_share: float = 0.5
    split_seed: int = 0

    def __post_init__(self) -> None:
        if not 2 <= self.modulus <= LARGEST:
            raise ValueError(f"modulus={self.modulus}: at least 2 and at most {LARGEST} is expected")
        if self.split_seed < 0:
            raise ValueError(f"split_seed={self.split_seed}: at least 0 is expected")
        pairs, n_train = self.modulus**2, round(self.train_share * self.modulus**2)
        if not 0 < n_train < pairs:
            raise ValueError(
                f"train_share={self.train_share}: {n_train} of {pairs} pairs; some must be for training and some held out"
            )

    @property
    def vocab_size(self) -> int:
        return self.modulus + 1

    @cached_property
    def parts(self) -> tuple[np.ndarray, np.ndarray]:
        """The training pairs and those held out, each pair as a * p + b."""
        order = np.random.Generator(np.random.Philox(key=self.split_seed)).permutation(self.modulus**2)
        train, rest = np.split(order, [round(self.train_share * self.modulus**2)])
        return train, rest

    @property
    def chance(self) -> float:
        answers = np.bincount(np.add(*np.divmod(self.parts[True], self.modulus)) % self.modulus)
        return float(answers.max() / answers.sum())  # the commonest answer of the held-out pairs: somewhat above 1 / p

    def check(self, *, seq_len: int) -> None:
        require_length("modular_addition", seq_len, PROBLEM, "a, b and the sign")

    def draw(self, rng: np.random.Generator, *, batch_size: int, seq_len: int, held_out: bool) -> Batch:
        self.check(seq_len=seq_len)
        problems = -(-seq_len // PROBLEM)
        pair = rng.choice(self.parts[held_out], size=(batch_size, problems))
        a, b = np.divmod(pair, self.modulus)
        tokens = np.stack([a, b, np.full_like(a, self.modulus)], axis=-1).reshape(batch_size, -1)  # (b, 3 problems)
        targets = no_targets(batch_size, problems * PROBLEM)
        targets[:, PROBLEM - 1 :: PROBLEM] = (a + b) % self.modulus
        positions = np.tile(np.arange(seq_len) % PROBLEM, (batch_size, 1))
        return as_batch(tokens[:, :seq_len], targets[:, :seq_len], positions)
