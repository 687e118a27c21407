"""Qwen 2 and 2.5, its dense models."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, qwen2

from . import rope, rotary
from .family import Family
from .nodes import Node, Size
from .settings import Config, only, sizes


def overrides(config: Config) -> list[str]:
    only(config, hidden_act="silu", use_sliding_window=False)
    return [
        "model=qwen2_5_0_5b",
        *rotary.overrides(config),
        *rope.overrides(config),
        *sizes(d_gated=config["intermediate_size"]),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return qwen2.names(n_layers=config["num_hidden_layers"], tied=rotary.tied(config))


def config(model: Node, size: Size) -> Config:
    return {**rotary.config(model, size), "use_sliding_window": False}


FAMILY = Family(
    model_type="qwen2",
    architecture="Qwen2ForCausalLM",
    overrides=overrides,
    names=names,
    config=config,
)
