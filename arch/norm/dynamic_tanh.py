"""Dynamic tanh: a norm without statistics."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Norm
from ..limits import above_zero, at_least_one


class DynamicTanh(Norm):
    """Squashes each channel on its own by a tanh with a learned slope; no statistics are taken.

    y = tanh(alpha * x) * weight + bias

    Paper: Zhu 2025, arXiv:2503.10622 (section 4). Differs: nothing.
    Cost per token: 2 * d_model + 1 parameters, no matrix products, no state.
    Args:   d_model: channels of each token. alpha: slope at the start of training.
    Shape:  x: (..., d_model) -> (..., d_model)
    """

    def __init__(self, *, d_model: int, alpha: float = 0.5) -> None:
        super().__init__()
        at_least_one(d_model=d_model)
        above_zero(alpha=alpha)
        self.start = alpha
        self.alpha = nn.Parameter(torch.empty(()))
        self.weight = nn.Parameter(torch.empty(d_model))
        self.bias = nn.Parameter(torch.empty(d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.constant_(self.alpha, self.start)
        nn.init.ones_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.bias, torch.tanh(self.alpha * x), self.weight)
