"""A run that starts from another: what makes the model is taken over, and words that contradict it are refused."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError
from ..build.groups import KEYS
from ..job import record
from ..job.run import Run
from ..job.start import read_run, reading, run_folder
from .overrides import group_of


def inherit(config: DictConfig, words: Sequence[str]) -> Run:
    """Put what the run config.run was made from in place; that run, its vocabulary filled in.

    Raises: ConfigError: no such run; a word that says otherwise.
    """
    folder = run_folder(Path(config.run))
    config.run = str(folder)
    with reading(folder):
        return _inherited(config, words, folder)


def _inherited(config: DictConfig, words: Sequence[str], folder: Path) -> Run:
    theirs = read_run(folder)
    env = record.read_json(folder / record.ENV) if (folder / record.ENV).is_file() else {}
    if "vocab_size" not in env:
        raise ConfigError(f"run={folder}: it has not begun (its env.json names no vocab_size); train it first")
    size = {**theirs.size, "vocab_size": env["vocab_size"]}
    tokenizer = theirs.data.get("tokenizer", _plain_node(config.tokenizer))
    made_from = {key: getattr(theirs, key) for key in ("shared", "causal", "family")} | {"size": size, "tokenizer": tokenizer}
    for word in words:
        key, _, value = word.lstrip("+~").partition("=")
        if inherited(word) and (there := _there(theirs, made_from, key)) != _read(value):
            raise ConfigError(f"{word.lstrip('+')}: the run that this one starts from has {key}={there}; leave it out")
    for key, value in made_from.items():
        config[key] = OmegaConf.create(value) if isinstance(value, dict) else value
    return theirs.of_vocabulary(env["vocab_size"])


def inherited(word: str) -> bool:
    return group_of(word) in KEYS and KEYS[group_of(word)].inherited


def inherited_choices(choices: Mapping[str, str], theirs: Mapping[str, str]) -> dict[str, str]:
    own = {group: option for group, option in choices.items() if not KEYS[group].inherited}
    return {**own, **{group: option for group, option in theirs.items() if KEYS[group].inherited}}


def _there(theirs: Run, made_from: Mapping[str, Any], key: str) -> Any:
    """What a command line would say of a key: of a group, its choice."""
    if key in theirs.choices:
        return theirs.choices[key]
    node: Any = made_from
    for part in key.split("."):
        node = node.get(part) if isinstance(node, Mapping) else None
    return "its own" if node is None else node


def _plain_node(node: Any) -> Any:
    return OmegaConf.to_container(node, resolve=True) if OmegaConf.is_config(node) else node


def _read(value: str) -> Any:
    return OmegaConf.create({"value": None}) if value == "" else OmegaConf.from_dotlist([f"value={value}"]).value
