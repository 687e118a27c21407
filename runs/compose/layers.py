"""The layers of a stack, each composed from words of its own."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..build.errors import ConfigError
from ..build.groups import KEYS
from ..build.stack import names, parse, tiled
from .effect import Part, at, drop_foreign, refuse_idle
from .explain import COMPOSING, CONF, explain
from .overrides import changed, group_of, key_of
from .values import refuse_other_keys, refuse_strange_values

OF_A_LAYER = tuple(name for name, key in KEYS.items() if key.layer)
BLOCK = ("block",)  # what a layer is built from


def compose_layers(raw: Any, resolved: dict[str, Any], words: Sequence[str]) -> tuple[dict[str | None, Any], list[Part]]:
    """The block of every layer that the model's stacks name, and what each was composed from; None names the model's own.

    A layer is a list of overrides under its name in ``layers``, or else the mixer of that name.
    Raises: ConfigError: a layer that does not compose, or says what has no effect on it; one that no stack names.
    """
    named, blocks, parts = raw["layers"] or {}, dict[str | None, Any](), []
    n_layers = resolved["size"]["n_layers"]
    typed = any(key_of(word) == "stack" for word in words)  # published stacks are cut at toy sizes
    reached = names(resolved["model"], n_layers if typed else None)
    for name in names(resolved["model"]):
        if name not in reached:
            raise ConfigError(f"stack: {name} stands beyond the size.n_layers={n_layers} layers there are; take a deeper model")
        if name is None:
            parts.append(Part(raw, words, BLOCK))
            blocks[None] = resolved["block"]
            continue
        changes = named.get(name, [f"mixer={name}"])
        refuse_other_words(name, changes)
        part, layer = compose_layer(name, changes, words)
        if (layer["final_norm"] is None) != (resolved["final_norm"] is None):
            raise ConfigError(f"layer {name}: its block and the model's block= do not end alike; choose one block= for all")
        parts.append(part)
        blocks[name] = layer["block"]
    idle = [name for name in named if name not in blocks]
    if idle and any(group_of(word) == "layers" for word in words):
        raise ConfigError(f"layers: {', '.join(idle)} is in no stack; name it in stack=..., or leave it out")
    return blocks, parts


def compose_layer(name: str, changes: Sequence[str], words: Sequence[str]) -> tuple[Part, dict[str, Any]]:
    replaced = tuple(f"{key_of(change)}." for change in changes)  # what is said of another mixer is not said of this one
    try:
        own = changed([word for word in words if not key_of(word).startswith(replaced)], changes)
        layer = hydra.compose("config", overrides=own)
        refuse_other_keys(layer)
        drop_foreign(layer, own)
        raw: Any = OmegaConf.to_container(layer, resolve=False)
        part = Part(raw, own, BLOCK)
        idle = [change for change in changes if not part.reads(key_of(change))]
        if not any(group_of(word) == "layers" for word in words):  # a model's own layers serve mixers that read less
            idle = [change for change in idle if (CONF / group_of(change)).is_dir()]
        refuse_idle(idle, "this layer")
        return part, plain(layer, raw)
    except COMPOSING as error:
        raise ConfigError(f"layer {name}: {explain(error)}") from None


def stacked(node: Any, blocks: dict[str | None, Any], n_layers: int) -> Any:
    """A model's node with every line of ``layers`` written out: one block's node after the other."""
    if not isinstance(node, dict):
        return node
    found = {key: stacked(value, blocks, n_layers) for key, value in node.items()}
    if "layers" in node:
        line = node["layers"]
        own = [None] * n_layers if line is None else tiled(parse(line), n_layers)
        found["layers"] = [blocks[name] for name in own]
    return found


def refuse_other_words(name: str, changes: Any) -> None:
    """Raises ConfigError: no list of overrides, or one that says more than what a layer is made of."""
    if not isinstance(changes, list) or not all(isinstance(change, str) for change in changes):
        raise ConfigError(f"layers.{name}={changes}: a list of overrides is expected, such as ['mixer=gqa']")
    for change in changes:
        if (group := group_of(change)) not in OF_A_LAYER:
            raise ConfigError(f"layers.{name}: {group} is no part of a layer; parts are {', '.join(OF_A_LAYER)}")


def plain(config: DictConfig, raw: Any, path: str = "") -> dict[str, Any]:
    """A config with every reference in its place. raw: the same as it is written. Raises ConfigError: what cannot be worked
    out, and from what."""
    refuse_strange_values(raw, path)
    try:
        content: Any = OmegaConf.to_container(config, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("while resolving interpolation: ")[-1]
        formula = at(raw, str(error.full_key))
        raise ConfigError(f"{error.full_key}{'' if formula is None else f'={formula}'}: {reason}") from None
    return {str(key): value for key, value in content.items()}
