"""Phi-3, at the lengths that it was trained at."""

from __future__ import annotations

import math
from collections.abc import Collection

from arch.pretrained import NameMap, phi3

from ..build.errors import ConfigError
from . import rope, rotary
from .family import Family
from .nodes import Node, Size, at, layers
from .settings import Config, number, only, shown, sizes


def overrides(config: Config) -> list[str]:
    only(config, hidden_act="silu")
    if (kind := rope.scaling(config)[1]) != "default":
        raise ConfigError(f"rope_scaling of type {shown(kind)} is not expressed here: models of this family load unscaled only")
    share = number("partial_rotary_factor", rope.parameters(config).get("partial_rotary_factor", 1.0))
    return [
        "model=phi3_mini",
        *rotary.overrides(config),
        *rotary.window_overrides(config),
        *sizes(d_gated=config["intermediate_size"], d_rotary=int(rotary.d_head(config) * share)),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return phi3.names(
        n_layers=config["num_hidden_layers"],
        n_heads=config["num_attention_heads"],
        n_kv_heads=rotary.n_kv_heads(config),
        d_head=rotary.d_head(config),
        tied=rotary.tied(config),
    )


def config(model: Node, size: Size) -> Config:
    position = at(layers(model)[0], "mixer.position")
    d_head, d_rotary = (at(position, key, size["d_head"]) for key in ("d_head", "d_rotary"))
    share = d_rotary / d_head
    share = share if int(share * d_head) == d_rotary else math.nextafter(share, 1)  # they cut off what is behind the point
    window = {"sliding_window": rotary.sliding_window(model)}
    return {**rotary.config(model, size), **window, "partial_rotary_factor": share}


FAMILY = Family(
    model_type="phi3",
    architecture="Phi3ForCausalLM",
    overrides=overrides,
    names=names,
    config=config,
)
