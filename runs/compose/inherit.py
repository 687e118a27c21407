"""The config of a run that starts from another: what makes the model is taken over, and told where it is contradicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError
from ..job import record
from ..job.start import read_config

BLOCKS = ("mixer", "cross", "pattern", "position", "score", "router", "ffn", "norm", "block")
INHERITED = ("size", "shared", "final_norm", "causal", "stack", "layers", "model", "tokenizer", *BLOCKS)


def inherit(config: DictConfig, overrides: Sequence[str]) -> dict[str, Any]:
    """Put the model and the tokenizer of the run config.run in place; that run's config.

    Raises: ConfigError: no such run; an override that says otherwise.
    """
    folder = Path(config.run)
    theirs = read_config(folder)
    env = record.read_json(folder / "env.json") if (folder / "env.json").is_file() else {}
    if "vocab_size" not in env:
        raise ConfigError(f"run={folder}: it has not begun (its env.json tells no vocab_size); train it first")
    theirs["size"]["vocab_size"] = env["vocab_size"]
    for override in overrides:
        key, _, value = override.lstrip("+~").partition("=")
        if key.split(".", maxsplit=1)[0] in INHERITED and (there := _told(theirs, key)) != _plain(value):
            raise ConfigError(f"{override}: the run that this one starts from has {key}={there}; leave it out")
    for key in INHERITED:
        config[key] = OmegaConf.create(theirs[key]) if isinstance(theirs[key], dict) else theirs[key]
    return theirs


def inherited_choices(choices: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    return {group: theirs.get(group, choice) if group in INHERITED else choice for group, choice in choices.items()}


def _told(config: dict[str, Any], key: str) -> Any:
    """What a command line would say of a key: of a group, its choice."""
    if key in config["choices"] and key != "stack":
        return config["choices"][key]
    node: Any = config
    for part in key.split("."):
        node = node.get(part) if isinstance(node, dict) else None
    return node


def _plain(value: str) -> Any:
    return OmegaConf.create({"value": None}) if value == "" else OmegaConf.from_dotlist([f"value={value}"]).value
