"""Marian: the first Transformer."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, marian

from . import activations
from .family import Family
from .nodes import Node, Size, at, layers, vocab_size
from .settings import Config, dividing, flag, only, sizes, whole


def overrides(config: Config) -> list[str]:
    only(config, share_encoder_decoder_embeddings=True, tie_word_embeddings=True, normalize_before=False)
    only(config, normalize_embedding=False, add_final_layer_norm=False, decoder_vocab_size=config["vocab_size"])
    for key in ("layers", "attention_heads", "ffn_dim"):
        only(config, **{f"decoder_{key}": whole(f"encoder_{key}", config[f"encoder_{key}"])})
    return [
        "model=transformer_base",
        activations.override(config, "activation_function", "gelu"),
        "position.absolute.layout=halves",
        "model.decoder.logit_bias=true",
        "shared.norm_eps=1e-05",
        *([] if flag(config, "scale_embedding") else ["model.decoder.embedding.scale=1.0"]),
        *sizes(
            d_model=config["d_model"],
            n_layers=config["encoder_layers"],
            n_heads=dividing("n_heads", config["encoder_attention_heads"], config["d_model"]),
            d_ff=config["encoder_ffn_dim"],
            vocab_size=config["vocab_size"],
            max_seq=config["max_position_embeddings"],
        ),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return marian.names(
        n_layers=config["encoder_layers"],
        n_decoder_layers=config["encoder_layers"],
        d_model=config["d_model"],
        max_seq=config["max_position_embeddings"],
    )


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    halves = {
        "layers": len(layers(model)),
        "attention_heads": at(layer, "mixer.n_heads", size["n_heads"]),
        "ffn_dim": at(layer, "ffn.d_ff", size["d_ff"]),
    }
    return {
        **{f"{half}_{key}": value for half in ("encoder", "decoder") for key, value in halves.items()},
        "d_model": size["d_model"],
        "vocab_size": vocab_size(model),
        "decoder_vocab_size": vocab_size(model),
        "max_position_embeddings": size["max_seq"],
        "scale_embedding": at(model, "decoder.embedding.scale", 1.0) != 1.0,
        "activation_function": activations.activation(layer),
        "share_encoder_decoder_embeddings": True,
        "tie_word_embeddings": True,
        "forced_eos_token_id": None,
    }


FAMILY = Family(
    model_type="marian",
    architecture="MarianMTModel",
    overrides=overrides,
    names=names,
    config=config,
    token_ids={"decoder_start_token_id": "bos"},
)
