"""Marian: the first Transformer as an encoder-decoder with one table for everything."""

from __future__ import annotations

import functools

import torch
from torch import Tensor

from .mapping import SQUEEZE, NameMap, Rule, renames, rule

LEAVES = ("weight", "bias")
FFN = {"fc1": "ffn.up_proj", "fc2": "ffn.down_proj", "final_layer_norm": "ffn_norm"}


def names(*, n_layers: int, n_decoder_layers: int, d_model: int, max_seq: int) -> NameMap:
    """MarianMTModel. Its decoder layer is two blocks of ours: one over the target, one that attends to the source."""
    rules = [
        rule("model.shared.weight", "encoder.embedding.weight"),
        rule("final_logits_bias", "decoder.logit_bias", SQUEEZE),
    ]
    for i in range(n_layers):
        theirs, ours = f"model.encoder.layers.{i}.", f"encoder.layers.{i}."
        rules += attention(f"{theirs}self_attn", ours) + renames(theirs, ours, FFN, LEAVES)
    for i in range(n_decoder_layers):
        theirs, over_target, over_source = (
            f"model.decoder.layers.{i}.",
            f"decoder.layers.{2 * i}.",
            f"decoder.layers.{2 * i + 1}.",
        )
        rules += attention(f"{theirs}self_attn", over_target)
        rules += attention(f"{theirs}encoder_attn", over_source) + renames(theirs, over_source, FFN, LEAVES)
    table = functools.partial(sinusoids, max_seq, d_model)
    copies = ("model.encoder.embed_tokens.weight", "model.decoder.embed_tokens.weight", "lm_head.weight")
    return NameMap(
        rules,
        their_copies=dict.fromkeys(copies, "model.shared.weight"),
        our_copies={"decoder.embedding.weight": "encoder.embedding.weight"},
        fixed={f"model.{part}.embed_positions.weight": table for part in ("encoder", "decoder")},
    )


def attention(theirs: str, ours: str) -> list[Rule]:
    projections = {f".{x}_proj": f"mixer.{x}_proj" for x in "qkv"}
    return renames(theirs, ours, {**projections, ".out_proj": "mixer.o_proj", "_layer_norm": "mixer_norm"}, LEAVES)


def sinusoids(max_seq: int, d_model: int) -> Tensor:
    """The position table that the layout holds: sines in the first half of the channels, cosines in the second."""
    angles = torch.arange(max_seq)[:, None] / 10000.0 ** (torch.arange(0, d_model, 2, dtype=torch.float64) / d_model)
    return torch.cat((angles.sin(), angles.cos()), dim=1).float()
