"""A published family: what it takes to read its folders and to write them. Whatever module of this room offers one is found."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Collection, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from arch.pretrained import NameMap

from .. import published
from ..build.errors import ConfigError
from .nodes import Node, Size, completed
from .settings import Config, shown


@dataclass(frozen=True, kw_only=True)
class Family:
    """One published layout, in both directions.

    Args:   model_type: as its config.json says, and as conf/model/<name>.yaml says with ``family:`` of a model in this layout.
            architecture: its class in transformers.
            overrides: config.json -> the command line that builds the model. names: config.json and the tensors' names,
            theirs or ours -> the map between them. config: a model with its layers one by one, and size -> config.json.
            heads: the objective's node -> the heads that the layout has room for. head_config: the tensors of these heads ->
            what they add to config.json. token_ids: entry of config.json -> the special token that it numbers, beside those of
            every family. n_matrices: config.json -> how many experts all layers have together, where each is a tensor of its
            own in the files.
    """

    model_type: str
    architecture: str
    overrides: Callable[[Config], list[str]]
    names: Callable[[Config, Collection[str]], NameMap]
    config: Callable[[Node, Size], Config]
    heads: Callable[[Node], Collection[str]] = lambda objective: ()
    head_config: Callable[[Mapping[str, Tensor]], Config] = lambda heads: {}
    token_ids: Mapping[str, str] = field(default_factory=dict)
    n_matrices: Callable[[Config], int] = lambda config: 0


def families() -> dict[str, Family]:
    """By model_type. Only modules of this room are imported, whatever a config.json says."""
    found = (importlib.import_module(f".{file.name}", published.__name__) for file in pkgutil.iter_modules(published.__path__))
    offered: list[Family] = [module.FAMILY for module in found if hasattr(module, "FAMILY")]
    return {family.model_type: family for family in offered}


def family_named(model_type: Any, asked: str) -> Family:
    """asked: how it was asked for, for messages. Raises ConfigError: no module of this room offers it."""
    known = families()
    if not isinstance(model_type, str) or model_type not in known:
        raise ConfigError(f"{asked}: no name map for this family; there are {', '.join(sorted(known))}")
    return known[model_type]


def family_of_config(config: Config) -> Family:
    return family_named(config["model_type"], f"model_type={shown(config['model_type'])}")


def overrides(config: Config) -> list[str]:
    """The command line that builds the very model of a config.json. Raises ConfigError: our blocks do not express it."""
    with _reading(config) as family:
        return family.overrides(config)


def names(config: Config, tensors: Collection[str]) -> NameMap:
    """The map between their tensors and ours, for tensors of the given names, theirs or ours."""
    with _reading(config) as family:
        return family.names(config, tensors)


def n_matrices(config: Config) -> int:
    """How many experts all layers have together, where each has tensors of its own in the files."""
    with _reading(config) as family:
        return family.n_matrices(config)


def config_of(family: Family, model: Node, size: Size) -> Config:
    """The config.json of a family for a model; what it cannot say of the model is left out, so compare what it builds."""
    entries = family.config(completed(model), size)
    return {"model_type": family.model_type, "architectures": [family.architecture], **entries}


@contextmanager
def _reading(config: Config) -> Iterator[Family]:
    """The family of a config.json; what goes wrong meanwhile is reported of it, in one line.

    A family may fail in any way on entries that are of another kind than it takes them for; what it was is the line's cause.
    """
    family = family_of_config(config)
    asked = f"config.json of a {family.model_type}"
    try:
        yield family
    except KeyError as error:
        raise ConfigError(f"{asked}: {error.args[0]} is missing") from error
    except ConfigError as error:
        raise ConfigError(f"{asked}: {error}") from error
    except Exception as error:
        raise ConfigError(f"{asked}: its entries do not go together ({type(error).__name__}: {error})") from error
