"""The activation of an ungated ffn, both ways."""

from __future__ import annotations

from ..build.errors import ConfigError
from .nodes import Node, at
from .settings import Config, shown

OPTIONS = {  # theirs -> the option of ffn= that has it
    "gelu": "dense",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
PUBLISHED = {"gelu_tanh": "gelu_new"}  # ours -> theirs, where it goes by another name


def override(config: Config, key: str, default: str) -> str:
    activation = config.get(key, default)
    if not isinstance(activation, str) or activation not in OPTIONS:
        raise ConfigError(f"{key}={shown(activation)} is not expressed here; {', '.join(OPTIONS)} are")
    return f"ffn={OPTIONS[activation]}"


def activation(layer: Node) -> str:
    ours: str = at(layer, "ffn.activation", "gelu")
    return PUBLISHED.get(ours, ours)
