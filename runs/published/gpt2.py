"""GPT-2."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, gpt2

from . import activations
from .family import Family
from .nodes import Node, Size, at, layers, norm_eps, vocab_size
from .settings import Config, dividing, only, shared, sizes, whole


def overrides(config: Config) -> list[str]:
    only(config, scale_attn_weights=True, scale_attn_by_inverse_layer_idx=False, add_cross_attention=False)
    only(config, tie_word_embeddings=True)
    return [
        "model=gpt2",
        activations.override(config, "activation_function", "gelu_new"),
        *shared(norm_eps=config.get("layer_norm_epsilon", 1e-5)),
        *sizes(
            d_model=config["n_embd"],
            n_layers=config["n_layer"],
            n_heads=dividing("n_heads", config["n_head"], config["n_embd"]),
            d_ff=config.get("n_inner") or 4 * whole("d_model", config["n_embd"]),
            vocab_size=config["vocab_size"],
            max_seq=config["n_positions"],
        ),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return gpt2.names(n_layers=config["n_layer"])


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    return {
        "n_embd": size["d_model"],
        "n_layer": len(layers(model)),
        "n_head": at(layer, "mixer.n_heads", size["n_heads"]),
        "n_inner": at(layer, "ffn.d_ff", size["d_ff"]),
        "n_positions": size["max_seq"],
        "vocab_size": vocab_size(model),
        "layer_norm_epsilon": norm_eps(layer),
        "activation_function": activations.activation(layer),
        "tie_word_embeddings": True,
    }


FAMILY = Family(
    model_type="gpt2",
    architecture="GPT2LMHeadModel",
    overrides=overrides,
    names=names,
    config=config,
)
