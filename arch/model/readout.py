"""Logits that are not written out yet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from torch import Tensor

from ..ops.cross_entropy import in_pieces, linear_cross_entropy
from ..ops.linear import linear


class Readout(NamedTuple):
    """What a linear map makes of vectors: x W^T + b. Of a large vocabulary the logits are many times the model's own tensors.

    Shape:  x: (..., d), weight: (classes, d), bias: (classes,)
    """

    x: Tensor
    weight: Tensor
    bias: Tensor | None = None

    def logits(self) -> Tensor:
        """(..., classes)"""
        return linear(self.x, self.weight, self.bias)

    def loss(self, targets: Tensor, *, ignore_index: int) -> Tensor:
        """Cross-entropy summed over the targets (...), in fp32; the logits are never all there."""
        x, targets = self.x.flatten(0, -2), targets.flatten()
        return linear_cross_entropy(x, self.weight, self.bias, targets, ignore_index=ignore_index)

    def pieces(self, targets: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
        """The logits of some rows after the other, each with their targets."""
        for x, wanted in in_pieces(self.x.flatten(0, -2), self.weight, targets.flatten()):
            yield self._replace(x=x).logits(), wanted
