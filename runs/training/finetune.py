"""How much of a model learns."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence

from torch import nn

from arch.lora import add_lora


class Finetune(ABC):
    """needs_start: whether it makes no sense on weights that were drawn at random."""

    needs_start: bool

    @abstractmethod
    def prepare(self, model: nn.Module, *, seed: int) -> None:
        """Freeze and add what is to be frozen and added, in place: once the weights are there, before the optimiser is."""


class Full(Finetune):
    """Every weight learns."""

    needs_start = False

    def prepare(self, model: nn.Module, *, seed: int) -> None:
        """All of it is free already."""


class Adapters(Finetune):
    """The model is frozen, and low-rank adapters beside some of its projections learn (see arch.lora.LoRA).

    Args:   rank: of each adapter. alpha: the adapters' change is scaled by alpha / rank. dropout: share of what they read that
            is set to zero in training. names: last names of the projections that get one.
    """

    needs_start = True

    def __init__(self, *, rank: int, alpha: float, dropout: float, names: Sequence[str]) -> None:
        self.rank, self.alpha, self.dropout, self.names = rank, alpha, dropout, names

    def prepare(self, model: nn.Module, *, seed: int) -> None:
        add_lora(model, self.names, rank=self.rank, alpha=self.alpha, dropout=self.dropout, seed=seed)
