"""Attention sinks."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..limits import above_zero, at_least_one
from .score import Score, fused, widened


class Sink(Score):
    """Gives each head a learned score that takes part in the softmax but brings no value, so that a head may attend to nothing.

    y_i = sum_j exp(scale * q_i . k_j) v_j / (exp(sink_h) + sum_j exp(scale * q_i . k_j))

    Paper: gpt-oss 2025, arXiv:2508.10925 (section 2); Xiao 2023, arXiv:2309.17453. Differs: nothing. Done by one more key with
    value 0, which scores sink_h through one more channel, so that fused kernels still serve.
    Cost per token: n_heads parameters, 2 * n_heads * d_head multiply-adds per pair.
    Args:   n_heads: query heads. scale: None = 1 / sqrt(d_head).
    Shape:  q: (b, h, q, d), k, v: (b, g, k, d) -> (b, h, q, d)
    """

    def __init__(self, *, n_heads: int, scale: float | None = None) -> None:
        super().__init__()
        at_least_one(n_heads=n_heads)
        above_zero(scale=scale)
        self.scale, self.n_heads = scale, n_heads
        self.sink = nn.Parameter(torch.empty(n_heads))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.zeros_(self.sink)

    def attend(self, q: Tensor, k: Tensor, v: Tensor, *, mask: Tensor | None = None, causal: bool = False) -> Tensor:
        d = q.shape[-1]
        scale = d**-0.5 if self.scale is None else self.scale
        q = widened(q, (self.sink / scale)[:, None, None])  # (b, h, q, d + 8)
        k = F.pad(k, (0, 8, 1, 0))  # (b, g, 1 + k, d + 8)
        k[:, :, 0, d] = 1.0
        v = F.pad(v, (0, 8, 1, 0))
        if mask is not None:
            mask = F.pad(mask, (1, 0), value=mask.dtype == torch.bool)  # the sink is always seen
        if not causal:
            return fused(q, k, v, mask=mask, causal=False, scale=scale)[..., :-8]
        q = F.pad(q, (0, 0, 1, 0))  # one more query as well keeps the kernel's causal diagonal in place
        return fused(q, k, v, mask=None, causal=True, scale=scale)[..., 1:, :-8]
