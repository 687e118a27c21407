"""Soft-capped scores."""

from __future__ import annotations

from torch import Tensor

from ..limits import above_zero
from .score import Score, products, weighted


class SoftCap(Score):
    """Bends the scores by a tanh so that none exceeds a cap.

    y_i = sum_j softmax_j(cap * tanh(scale * q_i . k_j / cap)) v_j

    Paper: Gemma 2 2024, arXiv:2408.00118 (section 2). Differs: nothing. No fused kernel: every pair is written out.
    Cost per token: no parameters, 2 * n_heads * d_head multiply-adds per pair.
    Args:   cap: largest score. scale: None = 1 / sqrt(d_head).
    Shape:  q: (b, h, q, d), k, v: (b, g, k, d) -> (b, h, q, d)
    Raises: ValueError: a cap that is not positive.
    """

    def __init__(self, *, cap: float, scale: float | None = None) -> None:
        super().__init__()
        above_zero(cap=cap, scale=scale)
        self.cap = cap
        self.scale = scale

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        scale = q.shape[-1] ** -0.5 if self.scale is None else self.scale
        scores = self.cap * (products(q, k) * (scale / self.cap)).tanh()  # (b, h, q, k)
        return weighted(scores, v, mask=mask, causal=causal)
