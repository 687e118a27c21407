"""From words to one run: Hydra composes, and every node comes out with no reference left."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from omegaconf import DictConfig, OmegaConf

from ..build.errors import ConfigError
from ..build.groups import KEYS, NODES
from ..build.sizes import refuse_other_size
from ..build.stack import parse, spelt
from ..job.run import Run, settings_of
from ..job.study import Study
from ..published import folder as published
from ..training.device import pick_device, pick_precision
from . import once, resolvers  # noqa: F401  what Hydra composes with, and what conf/ calls
from .effect import Part, by_name, drop_foreign, read_words, refuse_idle
from .explain import CONF, did_you_mean, leaves
from .inherit import inherit, inherited, inherited_choices
from .layers import compose_layers, plain, stacked
from .match import alone, solved_words
from .overrides import changed, group_of, key_of, normal
from .router_losses import idle_losses, without_idle_losses
from .values import refuse_other_keys, refuse_other_shared

STUDY_ALONE = ("arms", "seeds", "again")  # what is said of a study and of none of its runs


@dataclass(frozen=True)
class Point:
    """A run that a command asks for. words: of the command, without those of its arm. read: those of them that it reads."""

    run: Run
    words: Sequence[str]
    read: frozenset[str]


def of_words(words: Sequence[str], folder: Path = CONF) -> Run:
    """The run of a command line, where Hydra itself has not been called. Raises ConfigError: also for words without effect."""
    point = composed(words, folder)
    refuse_idle(word for word in point.words if word not in point.read)
    return point.run


def composed(words: Sequence[str], folder: Path = CONF) -> Point:
    words = [normal(word) for word in words]
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        config = hydra.compose("config", overrides=words, return_hydra_config=True)
        if "match" in config and config.match is not None:
            raise alone(config.match)
        return resolve(config, config.hydra.runtime.choices, words)


def resolve(config: DictConfig, choices: Any, words: Sequence[str]) -> Point:
    """One composed config as a run, with the words that it reads."""
    said = words
    refuse_other_keys(config)
    words = changed(words, solved_words(config))
    if config.weights is not None:
        config, choices, words = of_published(config, words)
    drop_foreign(config, words)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    for key in STUDY_ALONE:
        own.study[key] = None  # this run has its own arm and seed
    groups = {str(key): str(option) for key, option in choices.items() if key in KEYS and key != "study"}
    part = Part(OmegaConf.to_container(own, resolve=False), words)
    run, parts = from_words(own, groups, part) if own.run is None else from_run(own, groups, part)
    read = read_words(parts, said) | {word for word in said if by_name(word) or word not in words}
    if run.run is not None:  # what is inherited has been held against the words
        read |= {word for word in said if inherited(word)}
    return Point(run, said, frozenset(read - idle_losses(run, said)))


def from_words(config: DictConfig, groups: dict[str, str], part: Part) -> tuple[Run, list[Part]]:
    """A run whose model the words describe, and what it was composed from: the config, and each layer of its stacks."""
    resolved = plain(config, part.raw)
    refuse_other_size("n_layers", resolved["size"]["n_layers"])  # it may have been a reference
    blocks, layers = compose_layers(part.raw, resolved, part.words)
    n_layers = resolved["size"]["n_layers"]
    parts = [part, *layers]
    chosen = read_choices(groups, parts)
    if resolved["stack"] is not None:
        chosen["mixer"] = spelt(parse(resolved["stack"]), n_layers)
    return run_of({**resolved, "model": stacked(resolved["model"], blocks, n_layers)}, chosen), parts


def from_run(config: DictConfig, groups: dict[str, str], part: Part) -> tuple[Run, list[Part]]:
    """A run that takes its model over from another, and how its scales follow its size."""
    theirs = inherit(config, part.words)
    chosen = inherited_choices(read_choices(groups, [part]), theirs.choices)
    resolved = plain(config, OmegaConf.to_container(config, resolve=False))  # their parts are in it
    return run_of({**resolved, "model": theirs.model, "param": theirs.param}, chosen), [part]


def read_choices(groups: Mapping[str, str], parts: Sequence[Part]) -> dict[str, str]:
    return {key: option for key, option in groups.items() if key in NODES or any(part.reads(key) for part in parts)}


def run_of(resolved: dict[str, Any], choices: Mapping[str, str]) -> Run:
    for name in NODES:
        if "_target_" not in resolved[name]:
            raise ConfigError(f"{name}={resolved[name]}: a _target_ is missing, the class or function to build it with")
    for group in ("size", "shared"):  # a study's file may hold anything
        for key in resolved[group]:
            if f"{group}.{key}" not in leaves():
                raise ConfigError(f"{group}.{key}: unknown key; {did_you_mean(f'{group}.{key}')}")
    refuse_other_shared(resolved["shared"])
    for key in ("device", "precision"):
        if key not in resolved["train"]:
            raise ConfigError(f"train: {key} is missing")
    device = pick_device(resolved["train"]["device"])  # what auto stands for is part of what the run computes
    precision = pick_precision(resolved["train"]["precision"], device)
    settings, machine = settings_of({**resolved["train"], "device": str(device), "precision": precision})
    study = Study.of({key: value for key, value in resolved["study"].items() if key not in STUDY_ALONE})
    own = ("seed", "out", "size", "shared", "causal", "family", "run", "weights", "match", *NODES)
    values = {key: resolved[key] for key in own}
    return Run(**values, study=study, choices=choices, settings=without_idle_losses(settings, values["model"]), machine=machine)


def of_published(config: DictConfig, words: Sequence[str]) -> tuple[DictConfig, Any, list[str]]:
    """The config composed anew for the model of the weights that it names, with the choices and the words that did it."""
    if config.run is not None:
        raise ConfigError(f"run={config.run} and weights={config.weights}: a run starts from one of them")
    model = [normal(word) for word in published.overrides(published.read_config(Path(config.weights)))]
    for word in words:
        if key_of(word) in ("model", "size") and word not in model:
            raise ConfigError(f"{word}: weights={config.weights} says which model they belong to; leave it out")
    both = changed(model, words)
    anew = hydra.compose("config", overrides=both, return_hydra_config=True)
    chosen = any(group_of(word) == "tokenizer" for word in words)
    data: Any = OmegaConf.to_container(anew.data, resolve=False)
    if not chosen and data.get("tokenizer") is not None:  # the model knows the tokens of its own
        both = [*both, *map(normal, published.tokenizer(Path(config.weights)))]
        anew = hydra.compose("config", overrides=both, return_hydra_config=True)
    anew.study.arm, anew.seed, anew.match = config.study.arm, config.seed, config.match
    return anew, anew.hydra.runtime.choices, both
