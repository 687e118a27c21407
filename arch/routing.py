"""What the routers of a model decided, and what that says about their experts. Nothing here waits for the device."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from .contracts import Routing


def pop_routings(model: nn.Module) -> dict[str, Routing]:
    """The routing of every MoE since its last forward, by the module's name; each is given out once.

    Take them after the forward pass and before the backward pass: under activation checkpointing (non-reentrant only) the
    backward pass runs the routers again and leaves their routings anew.
    """
    routings = {}
    for name, module in model.named_modules():
        if isinstance(routing := getattr(module, "routing", None), Routing):
            routings[name] = routing
            module.routing = None
    return routings


def load(routing: Routing) -> Tensor:
    """How many assignments each expert got, those dropped and those of padding left out: (n_experts,) integers."""
    n_experts = routing.logits.shape[-1]
    counts = routing.expert.new_zeros(n_experts + 1)  # the last counts what was dropped
    return counts.scatter_add_(0, routing.expert, torch.ones_like(routing.expert))[:n_experts]


def entropy(routing: Routing) -> Tensor:
    """How undecided the router is, in nats: the mean entropy of its softmax, from 0 (sure) to log(n_experts) (even)."""
    log_p = routing.logits.detach().log_softmax(-1)
    return mean_of_text(-(log_p.exp() * log_p).sum(-1), routing)


def dropped(routing: Routing) -> Tensor:
    """The share of assignments that found their expert full: from 0 to 1."""
    full = (routing.expert == routing.logits.shape[-1]).float()
    if routing.real is None:
        return full.mean()
    of_text = routing.real[routing.token]
    return (full * of_text).sum() / of_text.sum().clamp(min=1)


def mean_of_text(values: Tensor, routing: Routing) -> Tensor:
    """The mean over the tokens that are no padding. (t, ...) -> (...)"""
    if routing.real is None:
        return values.mean(0)
    real = routing.real.view(-1, *(1 for _ in values.shape[1:]))
    return values.where(real, 0).sum(0) / real.sum().clamp(min=1)
