"""What training adds for routers: their losses, their balance after a step, and rows of metrics about their experts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, cast

from torch import Tensor, nn

from arch.contracts import Router, Routing
from arch.ffn import MoE
from arch.losses import load_balance_loss, router_z_loss
from arch.routing import dropped, entropy


def router_of(model: nn.Module, name: str) -> Router:
    return cast(MoE, model.get_submodule(name)).router


def routing_loss(router: Router, routing: Routing, *, load_balance: float, router_z: float) -> Tensor:
    """The auxiliary losses that a router asks for, by their weights."""
    total = routing.logits.new_zeros(())
    if "load_balance" in router.losses:
        total = total + load_balance * load_balance_loss(routing)
    if "router_z" in router.losses:
        total = total + router_z * router_z_loss(routing)
    return total


def after_step(router: Router, load: Tensor) -> None:
    """Let a router rebalance itself, unless its weights are frozen: then all of it is."""
    weights = list(router.parameters())
    if not weights or any(weight.requires_grad for weight in weights):
        router.after_step(load)


def routing_rows(loads: Mapping[str, Tensor], routings: Mapping[str, Routing]) -> Iterator[dict[str, Any]]:
    """One row per MoE layer: loads and dead experts over a window, entropy and dropped share of its last piece."""
    for name, counts in loads.items():
        total = counts.sum().clamp(min=1)
        yield {
            "layer": name,
            "load": [round(share, 6) for share in (counts / total).tolist()],
            "entropy": entropy(routings[name]).item(),
            "dropped": dropped(routings[name]).item(),
            "dead": int((counts == 0).sum()),
        }
