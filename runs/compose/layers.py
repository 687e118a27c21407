"""The layers of a stack, each composed by words of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hydra
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..build.errors import ConfigError
from ..build.stack import names
from .explain import explain
from .overrides import changed, key_of
from .unused import Part, refuse_unused

OF_A_LAYER = ("mixer", "cross", "pattern", "position", "score", "ffn", "router", "norm", "block", "size", "shared", "causal")


def compose_layers(raw: Any, resolved: dict[str, Any], overrides: Sequence[str]) -> tuple[dict[str, Any], list[Part]]:
    """The block of every layer that the model's stacks name, and what each was composed from.

    A layer is a list of overrides under its name in ``layers``, or else the mixer of that name.
    Raises: ConfigError: a layer that does not compose, or says what has no effect on it; one that no stack names.
    """
    named, layers, parts = raw["layers"] or {}, dict[str, Any](), []
    typed = any(key_of(override) == "stack" for override in overrides)  # published stacks are cut at toy sizes
    reached = names(resolved["model"], resolved["size"]["n_layers"] if typed else None)
    for name in names(resolved["model"]):
        if name not in reached:
            n_layers = resolved["size"]["n_layers"]
            raise ConfigError(f"stack: {name} stands beyond the size.n_layers={n_layers} layers there are; take a deeper model")
        if name is None:
            parts.append(Part(raw, overrides, ("block",)))
            continue
        changes = named.get(name, [f"mixer={name}"])
        refuse_other_words(name, changes)
        replaced = tuple(f"{key_of(change)}." for change in changes)  # what is said of another mixer is not said of this one
        point = changed([o for o in overrides if not key_of(o).startswith(replaced)], changes)
        try:
            layer = hydra.compose("config", overrides=point)
        except (HydraException, OmegaConfBaseException) as error:
            raise ConfigError(f"layer {name}: {explain(error)}") from None
        part, told = Part(OmegaConf.to_container(layer, resolve=False), point, ("block",)), plain(layer)
        try:
            refuse_unused([part], changes)
        except ConfigError as error:
            raise ConfigError(f"layer {name}: {error}") from None
        if (told["final_norm"] is None) != (resolved["final_norm"] is None):
            raise ConfigError(f"layer {name}: its block and the model's block= do not end alike; choose one block= for all")
        parts.append(part)
        layers[name] = told["block"]
    idle = [name for name in named if name not in layers]
    if idle and any(key_of(override).startswith("layers") for override in overrides):
        raise ConfigError(f"layers: {', '.join(idle)} is in no stack; name it in stack=..., or leave it out")
    return layers, parts


def refuse_other_words(name: str, changes: Any) -> None:
    """Raises ConfigError: no list of overrides, or one that says more than what a layer is made of."""
    if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
        raise ConfigError(f"layers.{name}={changes}: a list of overrides is expected, such as ['mixer=gqa']")
    for change in changes:
        if (group := key_of(change).split(".", maxsplit=1)[0]) not in OF_A_LAYER:
            raise ConfigError(f"layers.{name}: {group} is no part of a layer; parts are {', '.join(OF_A_LAYER)}")


def plain(config: DictConfig) -> dict[str, Any]:
    """A config with every reference in its place."""
    try:
        content: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("while resolving interpolation: ")[-1]
        raise ConfigError(f"{error.full_key}: {reason}") from None
    return {str(key): value for key, value in content.items()}
