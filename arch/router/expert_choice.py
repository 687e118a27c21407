"""The router in which experts choose tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from ..contracts import Routing
from .linear import LinearRouter, dropped_where, room


class ExpertChoice(LinearRouter):
    """Each expert takes the tokens that score it highest, all experts equally many; a token meets any number of them.

    S = softmax(W x) over the experts;   expert e takes the ceil(top_k * t / n_experts) tokens with the largest S_e, gate = S_e
    t: the tokens of the batch, without padding

    Paper: Zhou 2022, arXiv:2202.09368 (section 3.2). Differs: nothing. It looks at later tokens: not causal.
    Cost per token: d_model * n_experts parameters and as many multiply-adds, no state.
    Args:   d_model: channels of each token. n_experts: experts that choose. top_k: experts per token on average, the paper's
            capacity factor c.
    Shape:  x: (t, d_model) -> Routing of n_experts * ceil(top_k * t / n_experts) assignments, those that padding leaves over
            dropped
    Raises: ValueError: top_k is not above 0 and at most n_experts.
    """

    causal = False
    losses = ("router_z",)  # equal loads by construction

    def forward(self, x: Tensor, real: Tensor | None = None) -> Routing:
        logits = self.logits(x)  # (t, e)
        score = logits.softmax(-1) if real is None else logits.softmax(-1).where(real[:, None], -1.0)  # padding comes last
        gate, token = score.mT.topk(room(x.shape[0], self.top_k, self.n_experts))  # (e, capacity)
        expert = torch.arange(self.n_experts, device=x.device).unsqueeze(-1).expand_as(token)
        if real is None:
            return Routing(logits, token.flatten(), expert.flatten(), gate.flatten())
        # As many assignments as if all tokens were real; those that are one too many are dropped, as ones of padding.
        spare = torch.arange(token.shape[1], device=x.device) >= room(real.sum(), self.top_k, self.n_experts)
        token = torch.where(spare, real.int().argmin(), token)
        routing = Routing(logits, token.flatten(), expert.flatten(), gate.flatten(), real)
        return dropped_where(routing, spare.expand_as(token).flatten())
