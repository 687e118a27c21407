"""Root-mean-square normalisation."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Norm
from ..limits import above_zero, at_least_one
from ..ops.rms_norm import rms_norm


class RMSNorm(Norm):
    """Scales the channels of each token to unit root mean square, without centring them.

    y = x / sqrt(mean(x^2) + eps) * weight

    Paper: Zhang 2019, arXiv:1910.07467 (eq. 4). Differs: eps.
    Cost per token: d_model parameters, no matrix products, no state.
    Args:   d_model: channels of each token. eps: added to the mean square.
    Shape:  x: (..., d_model) -> (..., d_model)
    """

    def __init__(self, *, d_model: int, eps: float = 1e-6) -> None:
        super().__init__()
        at_least_one(d_model=d_model)
        above_zero(eps=eps)
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)

    def forward(self, x: Tensor) -> Tensor:
        # Under autocast x may be bf16 and the weight fp32: only equal dtypes reach the fused kernel, itself fp32 inside.
        return rms_norm(x, self.weight.to(x.dtype), self.eps)
