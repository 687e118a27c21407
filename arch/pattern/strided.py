"""Strided sparse attention."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ..contracts import Part, Pattern


class Strided(Pattern):
    """The nearest keys, and beyond them every stride-th one, so that two layers connect any two tokens.

    allows(i, j) = i - j < window or (i - j) mod stride = 0, for j <= i where causal, with |i - j| otherwise

    Paper: Child 2019, arXiv:1904.10509 (section 4.2). Differs: every head sees the union of the two sets.
    Cost per token: about window + seq / (2 * stride) pairs where causal, twice that otherwise.
    Args:   window: tokens each query sees on one side, itself included. stride: tokens between the far keys.
            causal: whether keys ahead are hidden.
    Shape:  positions (..., queries), (..., keys) -> boolean (..., queries, keys)
    Raises: ValueError: window or stride below 1.
    """

    def __init__(self, *, window: int, stride: int, causal: bool = True) -> None:
        super().__init__()
        if window < 1 or stride < 1:
            raise ValueError(f"window is {window} and stride is {stride}: at least 1 is needed for both")
        self.window = window
        self.stride = stride
        self.causal = causal

    def allows(self, q_positions: Tensor, k_positions: Tensor) -> Tensor:
        back = q_positions[..., :, None] - k_positions[..., None, :]  # (..., q, k)
        distance = back.abs()
        seen = (distance < self.window) | (distance % self.stride == 0)
        return seen & (back >= 0) if self.causal else seen

    def parts(self, seq: int) -> Sequence[Part]:
        """The blocks of ``stride`` tokens around a query, and all tokens that stand as far behind a multiple of the stride."""
        row = torch.arange(-(-seq // self.stride))[:, None]
        back = -(-(self.window - 1) // self.stride)  # blocks
        near = row + torch.arange(-back, 1 if self.causal else back + 1)
        far = Part(len(row), torch.arange(self.stride)[:, None], stride=self.stride)
        return [Part(self.stride, near.where((near >= 0) & (near < len(row)), -1)), far]

    def pairs(self, seq: int) -> int:
        near = min(self.window, seq)
        distances = [*range(near), *(d for d in range(0, seq, self.stride) if d >= near)]
        back = sum(seq - d for d in distances)
        return back if self.causal else 2 * back - seq
