"""OLMoE."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, olmoe

from . import experts, rope, rotary
from .family import Family
from .nodes import Node, Size, at, layers
from .settings import Config, flag, literal, only


def overrides(config: Config) -> list[str]:
    only(config, hidden_act="silu", clip_qkv=None)
    return [
        "model=olmoe_1b_7b",
        *rotary.overrides(config, eps=1e-5),
        *rope.overrides(config),
        "router=topk_normalised" if flag(config, "norm_topk_prob") else "router=topk",
        f"shared.attention_bias={literal(flag(config, 'attention_bias'))}",
        *experts.overrides(
            n_experts=config["num_experts"], top_k=config["num_experts_per_tok"], d_ff=config["intermediate_size"]
        ),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return olmoe.names(
        n_layers=config["num_hidden_layers"],
        n_experts=config["num_experts"],
        tied=rotary.tied(config),
        attention_bias=flag(config, "attention_bias"),
    )


def n_matrices(config: Config) -> int:
    return int(config["num_hidden_layers"] * config["num_experts"])


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    return {
        **rotary.config(model, size),
        **experts.config(layer.get("ffn"), size, n_experts="num_experts", d_ff="intermediate_size"),
        "norm_topk_prob": at(layer, "ffn.router.softmax") == "after",
        "attention_bias": at(layer, "mixer.bias") is True,
        "clip_qkv": None,
    }


FAMILY = Family(
    model_type="olmoe",
    architecture="OlmoeForCausalLM",
    overrides=overrides,
    names=names,
    n_matrices=n_matrices,
    config=config,
)
