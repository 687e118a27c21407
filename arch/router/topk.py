"""The usual router: each token takes its best experts."""

from __future__ import annotations

from typing import Literal

from torch import Tensor

from ..contracts import Routing
from .linear import LinearRouter, check_router_learns, token_choice


class TopK(LinearRouter):
    """Each token meets the top_k experts with the largest logits.

    before:  gate_e = softmax(W x)_e over all experts; the chosen gates sum to less than 1     (OLMoE)
    after:   gate_e = softmax over the chosen logits; they sum to 1                            (Mixtral)

    Paper: before: Muennighoff 2024, arXiv:2409.02060 (section 2); after: Jiang 2024, arXiv:2401.04088 (section 2.1).
    Differs: small initial weights. Softmax before the choice, renormalised, is softmax after it.
    Cost per token: d_model * n_experts parameters and as many multiply-adds, no state.
    Args:   d_model: channels of each token. n_experts: experts to choose from. top_k: experts per token.
            softmax: before or after the choice.
    Shape:  x: (t, d_model) -> Routing of t * top_k assignments
    Raises: ValueError: top_k is not in 1..n_experts; top_k = 1 with softmax after, which leaves the router no gradient.
    """

    top_k: int

    def __init__(self, *, d_model: int, n_experts: int, top_k: int, softmax: Literal["before", "after"] = "before") -> None:
        if softmax not in ("before", "after"):
            raise ValueError(f"softmax={softmax!r}: choose before or after (the choice of experts)")
        if softmax == "after":
            check_router_learns(top_k, n_experts)
        super().__init__(d_model=d_model, n_experts=n_experts, top_k=top_k)
        self.softmax = softmax

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        logits = self.logits(x)  # (t, e)
        if self.softmax == "before":
            gate, expert = logits.softmax(-1).topk(self.top_k)
        else:
            chosen, expert = logits.topk(self.top_k)
            gate = chosen.softmax(-1)
        return token_choice(logits, expert, gate, real)
