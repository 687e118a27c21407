"""The router in which experts choose tokens."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from ..contracts import Routing
from .linear import LinearRouter


class ExpertChoice(LinearRouter):
    """Each expert takes the tokens that score it highest, all experts equally many; a token meets any number of them.

    S = softmax(W x) over the experts;   expert e takes the ceil(top_k * t / n_experts) tokens with the largest S_e, gate = S_e

    Paper: Zhou 2022, arXiv:2202.09368 (section 3.2). Differs: nothing. It looks at later tokens: not causal.
    Cost per token: d_model * n_experts parameters and as many multiply-adds, no state.
    Args:   d_model: channels of each token. n_experts: experts that choose. top_k: experts per token on average, the paper's
            capacity factor c.
    Shape:  x: (t, d_model) -> Routing of n_experts * ceil(top_k * t / n_experts) assignments
    Raises: ValueError: top_k is not above 0 and at most n_experts.
    """

    causal = False
    losses = ("router_z",)
    balances_itself = True

    def forward(self, x: Tensor) -> Routing:
        logits = self.logits(x)  # (t, e)
        capacity = math.ceil(self.top_k * x.shape[0] / self.n_experts)
        gate, token = logits.softmax(-1).mT.topk(capacity)  # (e, capacity)
        expert = torch.arange(self.n_experts, device=x.device).unsqueeze(-1).expand_as(token)
        return Routing(logits, token.flatten(), expert.flatten(), gate.flatten())
