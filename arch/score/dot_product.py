"""Scaled dot product."""

from __future__ import annotations

from torch import Tensor

from ..limits import above_zero
from .score import Score, fused


class DotProduct(Score):
    """Softmax over scaled dot products of query and key.

    y_i = sum_j softmax_j(scale * q_i . k_j) v_j

    Paper: Vaswani 2017, arXiv:1706.03762 (eq. 1). Differs: nothing; Luong 2015, arXiv:1508.04025, is scale = 1.
    Cost per token: no parameters, 2 * n_heads * d_head multiply-adds per pair.
    Args:   scale: factor on the products; None = 1 / sqrt(d_head).
    Shape:  q: (b, h, q, d), k, v: (b, g, k, d) -> (b, h, q, d)
    """

    def __init__(self, *, scale: float | None = None) -> None:
        super().__init__()
        above_zero(scale=scale)
        self.scale = scale

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        return fused(q, k, v, mask=mask, causal=causal, scale=self.factor(q.shape[-1]))

    def factor(self, d_head: int) -> float:
        return d_head**-0.5 if self.scale is None else self.scale
