"""Qwen 2 and 2.5: Llama with biases on queries, keys and values."""

from __future__ import annotations

from .llama import OLD, attention, glu, head_copy, outside
from .mapping import NameMap


def names(*, n_layers: int, tied: bool = False) -> NameMap:
    """Qwen2ForCausalLM."""
    rules = outside(n_layers=n_layers, tied=tied)
    for i in range(n_layers):
        rules += attention(i, qkv_bias=True)
        rules += glu(f"model.layers.{i}.mlp.", f"layers.{i}.ffn.")
    return NameMap(rules, their_copies=head_copy(tied), spellings=OLD)
