"""Sliding-window attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..contracts import Part, Pattern


class SlidingWindow(Pattern):
    """The nearest keys: those less than a window away.

    allows(i, j) = 0 <= i - j < window where causal, |i - j| < window otherwise

    Paper: Beltagy 2020, arXiv:2004.05150 (section 3.1). Differs: nothing; no dilation.
    Cost per token: at most window pairs where causal, 2 * window - 1 otherwise.
    Args:   window: tokens each query sees on one side, itself included. causal: whether keys ahead are hidden.
    Shape:  positions (..., queries), (..., keys) -> boolean (..., queries, keys)
    Raises: ValueError: window below 1.
    """

    def __init__(self, *, window: int, causal: bool = True) -> None:
        super().__init__()
        if window < 1:
            raise ValueError(f"window is {window}: at least 1 is needed, the token itself")
        self.window = window
        self.causal = causal
        self.reach = window

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        back = q_positions[..., :, None] - k_positions[..., None, :]  # (..., q, k)
        near = back < self.window
        return near & (back >= 0 if self.causal else back > -self.window)

    def parts(self, seq: int) -> Sequence[Part]:
        # Small blocks waste less at the window's edges, large ones keep the matrix products large.
        size = max(self.window, 16) if self.window < 128 else -(-self.window // 2)
        back = -(-(self.window - 1) // size)  # blocks
        n_blocks = -(-seq // size)
        index = torch.arange(n_blocks)[:, None] + torch.arange(-back, 1 if self.causal else back + 1)
        return [Part(size, index.where((index >= 0) & (index < n_blocks), -1))]

    def pairs(self, seq: int) -> int:
        w = min(self.window, seq)
        back = seq * w - w * (w - 1) // 2
        return back if self.causal else 2 * back - seq
