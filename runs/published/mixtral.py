"""Mixtral."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, mixtral

from . import experts, rope, rotary
from .family import Family
from .nodes import Node, Size, layers
from .settings import Config, only


def overrides(config: Config) -> list[str]:
    only(config, hidden_act="silu")
    return [
        "model=mixtral_8x7b",
        *rotary.overrides(config, theta=1e6, eps=1e-5),
        *rope.overrides(config),
        *rotary.window_overrides(config),
        *experts.overrides(
            n_experts=config["num_local_experts"], top_k=config["num_experts_per_tok"], d_ff=config["intermediate_size"]
        ),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return mixtral.names(n_layers=config["num_hidden_layers"], n_experts=config["num_local_experts"], tied=rotary.tied(config))


def n_matrices(config: Config) -> int:
    return int(config["num_hidden_layers"] * config["num_local_experts"])


def config(model: Node, size: Size) -> Config:
    return {
        **rotary.config(model, size),
        **experts.config(layers(model)[0].get("ffn"), size, n_experts="num_local_experts", d_ff="intermediate_size"),
        "sliding_window": rotary.sliding_window(model),
    }


FAMILY = Family(
    model_type="mixtral",
    architecture="MixtralForCausalLM",
    overrides=overrides,
    names=names,
    n_matrices=n_matrices,
    config=config,
)
