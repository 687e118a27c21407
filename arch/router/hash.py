"""The router that learns nothing."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ..contracts import Cost, Router, Routing
from ..limits import at_least_one
from .linear import check_top_k, fp32_linear, token_choice


class Hash(Router):
    """Each token meets the experts whose fixed random directions lie nearest to it: a baseline for all that is learned.

    e: the top_k largest of R x, with frozen R ~ N(0, 1);   gate = 1

    Paper: Roller 2021, arXiv:2106.04426. Differs: that hashes the token's number into a table, so a word always meets the same
    expert; a router here sees only the hidden vector, hashed by direction (Andoni 2015, arXiv:1509.02897, without the negative
    directions). Alike vectors share experts, and a word can change its expert as the layers below it learn.
    Cost per token: no parameters, d_model * n_experts multiply-adds, no state; the directions are a buffer.
    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
    Shape:  x: (t, d_model) -> Routing of t * top_k assignments
    Raises: ValueError: top_k is not in 1..n_experts.
    """

    losses = ()  # nothing is learnt
    top_k: int
    directions: Tensor

    def __init__(self, *, d_model: int, n_experts: int, top_k: int = 1) -> None:
        super().__init__()
        at_least_one(d_model=d_model, n_experts=n_experts)
        check_top_k(top_k, n_experts)
        self.n_experts, self.top_k = n_experts, top_k
        self.register_buffer("directions", torch.empty(n_experts, d_model))
        self.reset_parameters()

    def reset_parameters(self) -> None:
        nn.init.normal_(self.directions)

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        logits = fp32_linear(x.detach(), self.directions)  # (t, e)
        expert = logits.topk(self.top_k).indices
        return token_choice(logits, expert, torch.ones_like(expert, dtype=logits.dtype), real)

    def cost(self, seq: int) -> Cost:
        return Cost(flops=2 * self.directions.numel())

    def extra_repr(self) -> str:
        return f"top {self.top_k} of {self.n_experts}"
