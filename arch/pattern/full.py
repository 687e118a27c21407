"""Full attention."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts import Pattern


class Full(Pattern):
    """Every key, or every earlier one and itself.

    allows(i, j) = j <= i where causal, true otherwise

    Paper: Vaswani 2017, arXiv:1706.03762 (section 3.2.3). Differs: nothing.
    Cost per token: (seq + 1) / 2 pairs where causal, seq otherwise.
    Args:   causal: whether keys ahead are hidden.
    Shape:  positions (..., queries), (..., keys) -> boolean (..., queries, keys)
    """

    def __init__(self, *, causal: bool = True) -> None:
        super().__init__()
        self.causal = causal

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        back = q_positions[..., :, None] - k_positions[..., None, :]  # (..., q, k)
        return back >= 0 if self.causal else torch.ones_like(back, dtype=torch.bool)

    def pairs(self, seq: int) -> int:
        return seq * (seq + 1) // 2 if self.causal else seq * seq
