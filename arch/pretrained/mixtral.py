"""Mixtral: Llama with routed experts, and the stacking that other mixtures share."""

from __future__ import annotations

from collections.abc import Mapping

from .llama import OLD, attention, head_copy, outside
from .mapping import STACK, NameMap, Rule, rule


def names(*, n_layers: int, n_experts: int, tied: bool = False) -> NameMap:
    """MixtralForCausalLM."""
    rules = outside(n_layers=n_layers, tied=tied)
    for i in range(n_layers):
        rules += attention(i)
        matrices = {"w1": "gate_proj", "w3": "up_proj", "w2": "down_proj"}
        rules += experts(f"model.layers.{i}.block_sparse_moe.", f"layers.{i}.ffn.", n_experts, matrices)
    return NameMap(rules, their_copies=head_copy(tied), spellings=OLD)


def experts(theirs: str, ours: str, n_experts: int, matrices: Mapping[str, str]) -> list[Rule]:
    """The router and the experts' matrices (their name -> ours), one bank of each kind."""
    banks = [
        rule([f"{theirs}experts.{e}.{t}.weight" for e in range(n_experts)], f"{ours}experts.{o}", STACK)
        for t, o in matrices.items()
    ]
    return [rule(f"{theirs}gate.weight", f"{ours}router.weight"), *banks]
