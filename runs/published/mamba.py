"""Mamba, the first one."""

from __future__ import annotations

from collections.abc import Collection

from arch.pretrained import NameMap, mamba

from .family import Family
from .nodes import Node, Size, at, layers, norm_eps, vocab_size
from .settings import Config, flag, literal, only, shared, sizes, whole, wholes


def overrides(config: Config) -> list[str]:
    only(config, hidden_act="silu", use_bias=False, use_conv_bias=True)
    rank = config.get("time_step_rank", "auto")
    return [
        "model=mamba_130m",
        f"model.tied={literal(tied(config))}",
        *wholes("mixer", d_state=config["state_size"], d_conv=config["conv_kernel"], expand=config["expand"]),
        f"mixer.dt_rank={'null' if rank == 'auto' else whole('dt_rank', rank)}",
        *shared(norm_eps=config.get("layer_norm_epsilon", 1e-5)),
        *sizes(d_model=config["hidden_size"], n_layers=config["num_hidden_layers"], vocab_size=config["vocab_size"]),
    ]


def names(config: Config, tensors: Collection[str]) -> NameMap:
    return mamba.names(n_layers=config["num_hidden_layers"], tied=tied(config))


def tied(config: Config) -> bool:
    return flag(config, "tie_word_embeddings", True)


def config(model: Node, size: Size) -> Config:
    layer = layers(model)[0]
    return {
        "hidden_size": size["d_model"],
        "num_hidden_layers": len(layers(model)),
        "vocab_size": vocab_size(model),
        "layer_norm_epsilon": norm_eps(layer),
        "tie_word_embeddings": at(model, "tied", True),
        "state_size": at(layer, "mixer.d_state", 16),
        "conv_kernel": at(layer, "mixer.d_conv", 4),
        "expand": at(layer, "mixer.expand", 2),
        "time_step_rank": at(layer, "mixer.dt_rank") or "auto",
        "hidden_act": "silu",
        "use_bias": False,
        "use_conv_bias": True,
    }


FAMILY = Family(
    model_type="mamba",
    architecture="MambaForCausalLM",
    overrides=overrides,
    names=names,
    config=config,
)
