"""Auxiliary losses of routers: pure functions of a routing; their weights belong to the training loop."""

from __future__ import annotations

from torch import Tensor

from .contracts import Routing
from .routing import load, mean_of_text


def load_balance_loss(routing: Routing) -> Tensor:
    """Pushes the router's probabilities away from the experts that work most; 1 when all work equally.

    n_experts * sum_e f_e P_e,   f_e: expert e's share of the assignments,   P_e: mean over tokens of softmax(logits)_e
    Padding counts in neither.

    Paper: Fedus 2021, arXiv:2101.03961 (eqs. 4-6). Differs: f counts assignments, not tokens, so that 1 is even for any top_k;
    and it counts those that were served, the paper those that were wanted.
    Shape:  logits: (t, e) -> ()
    """
    counts = load(routing).to(routing.logits.dtype)
    share = counts / counts.sum().clamp(min=1)
    return counts.numel() * (share * mean_of_text(routing.logits.softmax(-1), routing)).sum()


def router_z_loss(routing: Routing) -> Tensor:
    """Keeps the router's logits small, where fp32 and its softmax are exact enough.

    mean over tokens, without padding, of logsumexp(logits)^2

    Paper: Zoph 2022, arXiv:2202.08906 (eq. 5). Differs: nothing.
    Shape:  logits: (t, e) -> ()
    """
    return mean_of_text(routing.logits.logsumexp(-1).square(), routing)
