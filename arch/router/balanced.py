"""The router that stays balanced without a loss."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts import Routing
from .linear import LinearRouter, check_router_learns, token_choice


class Balanced(LinearRouter):
    """Each token meets the top_k experts with the largest biased scores; the biases push the load towards even.

    s = sigmoid(W x);   e: the top_k largest s + bias;   gate_e = s_e / sum of the chosen s
    after each step:  bias_e += bias_rate * sign(mean load - load_e)

    Paper: Wang 2024, arXiv:2408.15664 (algorithm 1), gates as in DeepSeek-V3, arXiv:2412.19437 (eqs. 13-16). Differs: no
    scaling of the gates, no groups of experts.
    Cost per token: d_model * n_experts parameters and as many multiply-adds, no state; the biases are a buffer.
    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
            bias_rate: how far a bias moves in one step, in units of the score (0 to 1).
    Shape:  x: (t, d_model) -> Routing of t * top_k assignments
    Raises: ValueError: top_k is not in 1..n_experts; top_k = 1, which leaves the router no gradient; bias_rate is not in 0..1.
    """

    losses = ("router_z",)  # the biases see to the balance
    top_k: int
    bias: Tensor

    def __init__(self, *, d_model: int, n_experts: int, top_k: int, bias_rate: float = 1e-3) -> None:
        check_router_learns(top_k, n_experts)
        super().__init__(d_model=d_model, n_experts=n_experts, top_k=top_k)
        if not 0 <= bias_rate <= 1:
            raise ValueError(f"bias_rate={bias_rate}: from 0 to 1 is needed, as the scores are")
        self.bias_rate = bias_rate

    def reset_parameters(self) -> None:
        super().reset_parameters()
        self.register_buffer("bias", torch.zeros(self.n_experts, device=self.weight.device))

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        logits = self.logits(x)  # (t, e)
        score = logits.sigmoid()
        expert = (score.detach() + self.bias).topk(self.top_k).indices
        gate = score.gather(-1, expert)
        return token_choice(logits, expert, gate / gate.sum(-1, keepdim=True), real)

    @torch.no_grad()
    def after_step(self, load: Tensor) -> None:
        load = load.to(self.bias.dtype)
        self.bias += self.bias_rate * (load.mean() - load).sign()
