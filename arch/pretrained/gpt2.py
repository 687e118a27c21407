"""GPT-2, as published: Radford 2019."""

from __future__ import annotations

from .mapping import TRANSPOSE, NameMap, chunks, renames, rule


def names(*, n_layers: int) -> NameMap:
    """GPT2LMHeadModel: its Conv1D holds (in, out) matrices, queries, keys and values in one."""
    rules = [
        rule("transformer.wte.weight", "embedding.weight"),
        rule("transformer.wpe.weight", "embedding.position.table.weight"),
        *renames("transformer.", "", {"ln_f": "final_norm"}, ("weight", "bias")),
    ]
    for i in range(n_layers):
        theirs, ours = f"transformer.h.{i}.", f"layers.{i}."
        rules += renames(theirs, ours, {"ln_1": "mixer_norm", "ln_2": "ffn_norm"}, ("weight", "bias"))
        matrices = {"attn.c_proj": "mixer.o_proj", "mlp.c_fc": "ffn.up_proj", "mlp.c_proj": "ffn.down_proj"}
        rules += renames(theirs, ours, matrices, ("bias",))
        rules += [rule(f"{theirs}{t}.weight", f"{ours}{o}.weight", TRANSPOSE) for t, o in matrices.items()]
        qkv = [f"{ours}mixer.{letter}_proj" for letter in "qkv"]
        rules += [
            rule(f"{theirs}attn.c_attn.weight", [f"{name}.weight" for name in qkv], TRANSPOSE, chunks(3)),
            rule(f"{theirs}attn.c_attn.bias", [f"{name}.bias" for name in qkv], chunks(3)),
        ]
    return NameMap(
        rules,
        their_copies={"lm_head.weight": "transformer.wte.weight"},
        spellings=[
            (r"\.attn\.(masked_)?bias$", None),  # the causal mask
            (r"^(wte|wpe|h|ln_f)\.", r"transformer.\1."),  # as saved without the head
        ],
    )
