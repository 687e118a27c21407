"""What may stand in a composed config, whatever it means: text keys, numbers that can be computed with, and no objects."""

from __future__ import annotations

from typing import Any, Literal

from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError
from ..build.groups import KEYS, NODES
from ..build.objects import PLAIN, expected, finite, fits
from ..build.sizes import refuse_other_size
from .explain import did_you_mean

KINDS: dict[str, Any] = {  # of top-level keys; what a node is built from is held against signatures later
    **dict.fromkeys((*NODES, "size", "shared", "train", "study"), dict[str, Any]),
    **dict.fromkeys(("run", "weights", "family", "stack"), str | None),
    "layers": dict[str, Any] | None,
    "match": str | dict[str, Any] | None,  # a budget, or what came of it
    "out": str,
    "causal": bool,
}
SHARED: dict[str, Any] = {  # held against their kinds by the names that a command line has for them
    "attention_bias": bool | Literal["qkv"],
    "ffn_bias": bool,
    **dict.fromkeys(("norm_eps", "rope_theta", "dropout", "residual_scale", "logit_scale"), float),
}


def refuse_other_keys(config: DictConfig) -> None:
    """Raises ConfigError: a top-level key that is none of ours, one of ours that is missing, or one of another kind."""
    for key in map(str, config):
        if key not in KEYS and key != "hydra":
            raise ConfigError(f"{key}: unknown key; {did_you_mean(key)}")
    for key in KEYS:
        if key not in config:
            raise ConfigError(f"~{key}: a run needs it; leave it in")
    for key, kind in KINDS.items():
        value = config[key]
        whole = {} if OmegaConf.is_dict(value) else [] if OmegaConf.is_list(value) else value  # what is in it is asked later
        if not fits(whole, kind):
            raise ConfigError(f"{key}={value}: {expected(kind)} is expected")
    sizes: Any = OmegaConf.to_container(config.size, resolve=False)
    for name, size in sizes.items():
        if not (isinstance(size, str) and "${" in size):  # what refers to another is worked out later
            refuse_other_size(name, size)


def refuse_other_shared(shared: dict[str, Any]) -> None:
    """Raises ConfigError: a value of another kind, references in their places."""
    for key, value in shared.items():
        if not fits(value, SHARED.get(key, Any)):
            raise ConfigError(f"shared.{key}={value!r:.80}: {expected(SHARED[key])} is expected")


def refuse_strange_values(node: Any, path: str) -> None:
    """Raises ConfigError: a key that is no text, a number that is not finite, text with a NUL, an object of a yaml tag."""
    if isinstance(node, dict):
        for key, value in node.items():
            if not isinstance(key, str):
                raise ConfigError(f"{path or 'the config'}: the key {key!r} is no text; write it in quotes")
            refuse_strange_values(value, f"{path}.{key}" if path else key)
    elif isinstance(node, list):
        for i, value in enumerate(node):
            refuse_strange_values(value, f"{path}.{i}")
    elif not isinstance(node, PLAIN):
        raise ConfigError(f"{path}={node!r}: text, a number, true, false, null, a list or keys are expected")
    elif not finite(node):
        raise ConfigError(f"{path}={node!r}: a finite number is expected")
    elif isinstance(node, str) and "\0" in node:
        raise ConfigError(f"{path}={node!r}: no path and no name holds a NUL")
