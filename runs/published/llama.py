"""Llama 2 and 3."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, llama

from . import rope, rotary
from .family import Family
from .nodes import Node, Size, at, layers
from .settings import Config, flag, literal, only, sizes


def overrides(config: Config) -> list[str]:
    only(config, hidden_act="silu", pretraining_tp=1)
    return [
        "model=llama2_7b",
        *rotary.overrides(config),
        *rope.overrides(config),
        f"shared.attention_bias={literal(flag(config, 'attention_bias'))}",
        f"shared.ffn_bias={literal(flag(config, 'mlp_bias'))}",
        *sizes(d_gated=config["intermediate_size"]),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return llama.names(
        n_layers=config["num_hidden_layers"],
        tied=rotary.tied(config),
        attention_bias=flag(config, "attention_bias"),
        ffn_bias=flag(config, "mlp_bias"),
    )


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    biases = {"attention_bias": at(layer, "mixer.bias") is True, "mlp_bias": at(layer, "ffn.bias") is True}
    return {**rotary.config(model, size), **biases}


FAMILY = Family(
    model_type="llama",
    architecture="LlamaForCausalLM",
    overrides=overrides,
    names=names,
    config=config,
)
