"""DeepSeek-V2: multi-head latent attention; the first layers dense, the others with shared and routed experts."""

from __future__ import annotations

import torch
from einops import rearrange

from .llama import OLD, glu, head_copy, outside
from .mapping import NameMap, Rule, renames, reorder, rule
from .mixtral import experts


def names(
    *,
    n_layers: int,
    n_dense_layers: int,
    n_experts: int,
    n_heads: int,
    d_nope: int,
    d_rope: int,
    d_latent: int,
    q_latent: bool = False,
) -> NameMap:
    """DeepseekV2ForCausalLM.

    Args: n_dense_layers: layers before the first MoE. d_nope, d_rope: channels of a head's query that stay and that rotate.
          d_latent: channels that keys and values are made of. q_latent: whether queries are made of such channels too.
    """
    rules = outside(n_layers=n_layers, tied=False)
    for i in range(n_layers):
        theirs, ours = f"model.layers.{i}.", f"layers.{i}."
        rules += attention(
            f"{theirs}self_attn.",
            f"{ours}mixer.",
            n_heads=n_heads,
            d_nope=d_nope,
            d_rope=d_rope,
            d_latent=d_latent,
            q_latent=q_latent,
        )
        if i < n_dense_layers:
            rules += glu(f"{theirs}mlp.", f"{ours}ffn.")
            continue
        matrices = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
        rules += experts(f"{theirs}mlp.", f"{ours}ffn.", n_experts, matrices)
        rules += glu(f"{theirs}mlp.shared_experts.", f"{ours}ffn.shared.")
    return NameMap(rules, their_copies=head_copy(False), spellings=OLD)


def attention(theirs: str, ours: str, *, n_heads: int, d_nope: int, d_rope: int, d_latent: int, q_latent: bool) -> list[Rule]:
    """They rotate channels 2j and 2j + 1 as a pair, we j and j + d_rope / 2."""
    rotated = rearrange(torch.arange(d_rope), "(j pair) -> (pair j)", pair=2)
    head = torch.cat((torch.arange(d_nope), d_nope + rotated))
    first_rows = (d_nope + d_rope) * torch.arange(n_heads)
    queries = rearrange(first_rows[:, None] + head, "h d -> (h d)")
    keys = torch.cat((torch.arange(d_latent), d_latent + rotated))
    table = {"kv_a_layernorm": "kv_norm", "kv_b_proj": "kv_up_proj", "o_proj": "o_proj"}
    if q_latent:
        table |= {"q_a_proj": "q_down_proj", "q_a_layernorm": "q_norm"}
    q = ("q_b_proj", "q_up_proj") if q_latent else ("q_proj", "q_proj")
    return [
        *renames(theirs, ours, table),
        rule(f"{theirs}{q[0]}.weight", f"{ours}{q[1]}.weight", reorder(queries)),
        rule(f"{theirs}kv_a_proj_with_mqa.weight", f"{ours}kv_down_proj.weight", reorder(keys)),
    ]
