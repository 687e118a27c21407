"""Layer normalisation."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import Norm
from ..limits import above_zero, at_least_one


class LayerNorm(Norm):
    """Centres the channels of each token and scales them to unit variance.

    y = (x - mean(x)) / sqrt(var(x) + eps) * weight + bias

    Paper: Ba 2016, arXiv:1607.06450 (section 3). Differs: nothing.
    Cost per token: 2 * d_model parameters (d_model without bias), no matrix products, no state.
    Args:   d_model: channels of each token. eps: added to the variance. bias: whether a learned offset follows.
    Shape:  x: (..., d_model) -> (..., d_model)
    """

    def __init__(self, *, d_model: int, eps: float = 1e-5, bias: bool = True) -> None:
        super().__init__()
        at_least_one(d_model=d_model)
        above_zero(eps=eps)
        self.eps = eps
        self.weight = nn.Parameter(torch.empty(d_model))
        self.bias = nn.Parameter(torch.empty(d_model)) if bias else None
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.ones_(self.weight)
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return F.layer_norm(x, self.weight.shape, self.weight, self.bias, self.eps)
