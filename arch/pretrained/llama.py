"""Llama 2 and 3, and what its layers share with their many descendants."""

from __future__ import annotations

from .mapping import NameMap, Rule, renames, rule

OLD = [(r"rotary_emb\.inv_freq$", None)]  # frequencies, which older files hold


def names(*, n_layers: int, tied: bool = False, attention_bias: bool = False, ffn_bias: bool = False) -> NameMap:
    """LlamaForCausalLM."""
    rules = outside(n_layers=n_layers, tied=tied)
    for i in range(n_layers):
        rules += attention(i, qkv_bias=attention_bias, o_bias=attention_bias)
        rules += glu(f"model.layers.{i}.mlp.", f"layers.{i}.ffn.", bias=ffn_bias)
    return NameMap(rules, their_copies=head_copy(tied), spellings=OLD)


def outside(*, n_layers: int, tied: bool) -> list[Rule]:
    """All that is neither attention nor ffn: embedding, norms, the head where it is a matrix of its own."""
    rules = renames("model.", "", {"embed_tokens": "embedding", "norm": "final_norm"})
    for i in range(n_layers):
        norms = {"input_layernorm": "mixer_norm", "post_attention_layernorm": "ffn_norm"}
        rules += renames(f"model.layers.{i}.", f"layers.{i}.", norms)
    return rules if tied else [*rules, rule("lm_head.weight", "lm_head.weight")]


def attention(layer: int, *, qkv_bias: bool = False, o_bias: bool = False) -> list[Rule]:
    theirs, ours = f"model.layers.{layer}.self_attn.", f"layers.{layer}.mixer."
    inputs = {name: name for name in ("q_proj", "k_proj", "v_proj")}
    rules = renames(theirs, ours, inputs, ("weight", "bias") if qkv_bias else ("weight",))
    return rules + renames(theirs, ours, {"o_proj": "o_proj"}, ("weight", "bias") if o_bias else ("weight",))


def glu(theirs: str, ours: str, *, bias: bool = False) -> list[Rule]:
    same = {name: name for name in ("gate_proj", "up_proj", "down_proj")}
    return renames(theirs, ours, same, ("weight", "bias") if bias else ("weight",))


def head_copy(tied: bool) -> dict[str, str]:
    return {"lm_head.weight": "model.embed_tokens.weight"} if tied else {}
