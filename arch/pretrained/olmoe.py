"""OLMoE: Llama with routed experts and a norm on all queries and on all keys."""

from __future__ import annotations

from .llama import OLD, attention, head_copy, outside
from .mapping import NameMap, renames
from .mixtral import experts


def names(*, n_layers: int, n_experts: int, tied: bool = False, attention_bias: bool = False) -> NameMap:
    """OlmoeForCausalLM."""
    rules = outside(n_layers=n_layers, tied=tied)
    for i in range(n_layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        rules += attention(i, qkv_bias=attention_bias, o_bias=attention_bias)
        rules += renames(f"{theirs}self_attn.", f"{ours}mixer.score.", {"q_norm": "q_norm", "k_norm": "k_norm"})
        matrices = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
        rules += experts(f"{theirs}mlp.", f"{ours}ffn.", n_experts, matrices)
    return NameMap(rules, their_copies=head_copy(tied), spellings=OLD)
