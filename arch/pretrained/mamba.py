"""Mamba."""

from __future__ import annotations

from .mapping import NameMap, renames, rule


def names(*, n_layers: int, tied: bool = True) -> NameMap:
    """MambaForCausalLM."""
    rules = renames("backbone.", "", {"embeddings": "embedding", "norm_f": "final_norm"})
    if not tied:
        rules.append(rule("lm_head.weight", "lm_head.weight"))
    for i in range(n_layers):
        theirs, ours = f"backbone.layers.{i}.mixer.", f"layers.{i}.mixer."
        rules += renames(f"backbone.layers.{i}.", f"layers.{i}.", {"norm": "mixer_norm"})
        rules += renames(theirs, ours, {"conv1d": "conv1d"}, ("weight", "bias"))
        rules += renames(theirs, ours, {"in_proj": "in_proj", "x_proj": "x_proj", "out_proj": "o_proj"})
        flat = {"dt_proj.weight": "dt_proj", "dt_proj.bias": "dt_bias", "A_log": "A_log", "D": "D"}
        rules += [rule(f"{theirs}{t}", f"{ours}{o}") for t, o in flat.items()]
    return NameMap(
        rules,
        their_copies={"lm_head.weight": "backbone.embeddings.weight"} if tied else {},
        spellings=[(r"^backbone\.embedding\.", "backbone.embeddings.")],  # as the authors' own code writes it
    )
