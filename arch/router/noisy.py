"""The first sparse router: noise decides among experts that are nearly equal."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from ..contracts import Routing
from .linear import LinearRouter, check_router_learns, fp32_linear, token_choice


class NoisyTopK(LinearRouter):
    """Each token meets the top_k experts with the largest logits after noise of a learned size, in training only.

    h = W x + normal * softplus(W_noise x);   gate = softmax over the top_k largest h

    Paper: Shazeer 2017, arXiv:1701.06538 (eqs. 3-5). Differs: small initial weights, not zero ones; balance is left to
    ``load_balance_loss`` instead of the paper's importance and load losses.
    Cost per token: 2 * d_model * n_experts parameters and as many multiply-adds (half of these in evaluation), no state.
    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
    Shape:  x: (t, d_model) -> Routing of t * top_k assignments
    Raises: ValueError: top_k is not in 1..n_experts; top_k = 1, which leaves the router no gradient.
    """

    top_k: int

    def __init__(self, *, d_model: int, n_experts: int, top_k: int) -> None:
        check_router_learns(top_k, n_experts)
        super().__init__(d_model=d_model, n_experts=n_experts, top_k=top_k)
        self.noise_weight = nn.Parameter(torch.empty(n_experts, d_model))
        self.reset_parameters()

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        logits = self.logits(x)  # (t, e)
        if self.training:
            logits = logits + torch.randn_like(logits) * F.softplus(fp32_linear(x, self.noise_weight))
        chosen, expert = logits.topk(self.top_k)
        return token_choice(logits, expert, chosen.softmax(-1), real)
