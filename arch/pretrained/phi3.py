"""Phi-3: Llama with its projections fused."""

from __future__ import annotations

from .llama import OLD, head_copy, outside
from .mapping import NameMap, chunks, rule, split


def names(*, n_layers: int, n_heads: int, n_kv_heads: int, d_head: int, tied: bool = False) -> NameMap:
    """Phi3ForCausalLM. Args: n_heads, n_kv_heads, d_head: where its matrix of queries, keys and values is cut."""
    q, kv = n_heads * d_head, n_kv_heads * d_head
    rules = outside(n_layers=n_layers, tied=tied)
    for i in range(n_layers):
        theirs, mixer, ffn = f"model.layers.{i}.", f"layers.{i}.mixer.", f"layers.{i}.ffn."
        rules += [
            rule(f"{theirs}self_attn.qkv_proj.weight", [f"{mixer}{x}_proj.weight" for x in "qkv"], split(q, kv, kv)),
            rule(f"{theirs}self_attn.o_proj.weight", f"{mixer}o_proj.weight"),
            rule(f"{theirs}mlp.gate_up_proj.weight", [f"{ffn}gate_proj.weight", f"{ffn}up_proj.weight"], chunks(2)),
            rule(f"{theirs}mlp.down_proj.weight", f"{ffn}down_proj.weight"),
        ]
    return NameMap(rules, their_copies=head_copy(tied), spellings=OLD)
