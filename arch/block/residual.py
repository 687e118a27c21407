"""What layers with a residual stream share: how a sublayer's output is added to it."""

from __future__ import annotations

from torch import Tensor, nn

from ..contracts import Block


class Residual(Block):
    """residual_scale: factor on what each sublayer adds to the residual stream. dropout: of the same."""

    dropout: nn.Dropout
    residual_scale: float

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        """The stream x with a sublayer's output y added."""
        y = self.dropout(y)
        return x + (y if self.residual_scale == 1 else y * self.residual_scale)
