"""Attention as kernel regression."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..limits import above_zero, at_least_one
from .score import Score, fused, precise, widened


class Gaussian(Score):
    """Nadaraya-Watson regression: the values, weighted by a Gaussian kernel of the distance between query and key.

    y_i = sum_j w_ij v_j / sum_j w_ij,  w_ij = exp(-|q_i - k_j|^2 / (2 sigma_h^2))

    Paper: Nadaraya 1964; Watson 1964; as attention Zhang 2021, arXiv:2106.11342 (section 11.2). Differs: nothing.
    |q|^2 cancels and -|k|^2 / 2 is the product of one more channel with 1, so that fused kernels serve.
    Cost per token: n_heads parameters (none where fixed), 2 * n_heads * d_head multiply-adds per pair.
    Args:   d_head: channels of one head. n_heads: query heads. sigma: bandwidth at the start, in units of q; None =
            d_head^(1/4), at which q . k has the weight of the scaled dot product. learned: one bandwidth per head; else fixed.
    Shape:  q: (b, h, q, d), k, v: (b, g, k, d) -> (b, h, q, d)
    Raises: ValueError: a bandwidth that is not positive.
    """

    def __init__(self, *, d_head: int, n_heads: int, sigma: float | None = None, learned: bool = True) -> None:
        super().__init__()
        at_least_one(d_head=d_head, n_heads=n_heads)
        self.sigma = d_head**0.25 if sigma is None else sigma
        above_zero(sigma=self.sigma)
        self.n_heads = n_heads if learned else None
        self.log_stretch = nn.Parameter(torch.empty(n_heads)) if learned else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        if self.log_stretch is not None:
            nn.init.zeros_(self.log_stretch)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        q = widened(q, q.new_ones(1))  # (b, h, q, d + 8)
        k = widened(k, precise(k).square().sum(-1, keepdim=True) / -2)
        if self.log_stretch is not None:
            q = q * (-2 * self.log_stretch).exp().to(q.dtype)[:, None, None]
        y = fused(q, k, F.pad(v, (0, 8)), mask=mask, causal=causal, scale=self.sigma**-2)
        return y[..., : v.shape[-1]]
