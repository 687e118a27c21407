"""From the command line to resolved configs: Hydra composes, a study's arms are unfolded, what nothing uses is refused."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from ..build.errors import ConfigError
from ..build.objects import call, nearest
from ..published import folder as weights
from ..training.device import pick_device, pick_precision
from .explain import CONF, explain
from .inherit import inherit, inherited_choices
from .layers import compose_layers, plain
from .overrides import changed, key_of
from .unused import Part, refuse_unknown, refuse_unused


@dataclass(frozen=True, kw_only=True)
class Study:
    """Which runs belong together. arms: name -> overrides; seeds: every arm is run with each; slots: runs at a time;
    timeout: seconds after which a run counts as hung."""

    name: str
    arm: str | None
    baseline: str | None
    arms: dict[str, list[str]] | None
    seeds: list[int] | None
    slots: int
    timeout: float | None

    def __post_init__(self) -> None:
        if self.slots < 1:
            raise ValueError(f"slots={self.slots}: at least 1 run at a time is needed")
        if self.seeds == []:
            raise ValueError("seeds=[]: at least 1 seed is needed")
        for arm, changes in (self.arms or {}).items():
            if not isinstance(changes, list):
                raise ValueError(f"arms.{arm}={changes!r}: a list of overrides is expected, such as [ffn=moe]")
        if self.arms and self.baseline is not None and self.baseline not in self.arms:
            raise ValueError(f"baseline={self.baseline}: no such arm; {nearest(self.baseline, self.arms)}")


def to_dict(node: Any) -> dict[str, Any]:
    content: Any = OmegaConf.to_container(node, resolve=True)
    return {str(key): value for key, value in content.items()}


def quotient(a: int, b: int) -> int:
    if b < 1 or a % b:
        raise ValueError(f"{b} does not divide {a}; {b * max(1, a // b) if b > 0 else a} would do")
    return a // b


def share(a: int, n: int) -> int:
    """An n-th of a whole number, rounded down to one."""
    return max(1, a // n)


def two_thirds(width: int) -> int:
    """The width of a gated ffn with as many parameters as an ungated one, to the nearest multiple of 8."""
    return max(8, round(2 * width / 3 / 8) * 8)


def rotary_scaling(position: Any) -> Any:
    """How a relative position stretches its frequencies, for mixers that turn channels of their own."""
    if position is not None and position["_target_"] != "arch.Rotary":
        raise ValueError(f"it turns channels of its own, so {position['_target_']} tells it nothing; take a rotary position")
    return None if position is None else position.get("scaling")


OmegaConf.register_new_resolver("quotient", quotient, replace=True)
OmegaConf.register_new_resolver("share", share, replace=True)
OmegaConf.register_new_resolver("sqrt", math.sqrt, replace=True)
OmegaConf.register_new_resolver("plus", lambda a, b: a + b, replace=True)
OmegaConf.register_new_resolver("times", lambda a, b: a * b, replace=True)
OmegaConf.register_new_resolver("rotary_scaling", rotary_scaling, replace=True)
OmegaConf.register_new_resolver("two_thirds", two_thirds, replace=True)


def of_words(words: Sequence[str], folder: Path = CONF) -> dict[str, Any]:
    """The resolved config of a command line, where Hydra itself has not been called."""
    with hydra.initialize_config_dir(str(folder), version_base="1.3"):
        composed = hydra.compose("config", overrides=list(words), return_hydra_config=True)
        return resolve(composed, composed.hydra.runtime.choices, words)


def configs(config: DictConfig, refuse: Callable[[ConfigError], None]) -> list[dict[str, Any]]:
    """All runs that one Hydra job stands for, resolved: one, or every arm with every seed of a study. Call inside Hydra.

    Seeds turn slowest: the arms of one seed are neighbours in time, so that a slow hour of the machine meets all of them.
    Args:   refuse: is told of each arm that does not compose; the others stay.
    """
    given = HydraConfig.get().overrides
    overrides = [*(o for o in given.hydra if key_of(o) == "hydra.searchpath"), *given.task]
    study: Study = call(Study, to_dict(config.study), "study")
    if not study.arms and study.seeds is None:
        return [resolve(config, HydraConfig.get().runtime.choices, overrides)]
    found = []
    seeds = study.seeds if study.seeds and not any(key_of(override) == "seed" for override in overrides) else [config.seed]
    for seed in seeds:
        arms: dict[Any, list[str]] = dict(study.arms) if study.arms else {study.arm: []}
        for arm, changes in arms.items():
            point = changed(overrides, [f"seed={seed}", *changes])
            try:
                composed = hydra.compose("config", overrides=point, return_hydra_config=True)
                composed.study.arm = arm
                found.append(resolve(composed, composed.hydra.runtime.choices, point))
            except (ConfigError, HydraException, OmegaConfBaseException) as error:
                refuse(ConfigError(f"arm {arm} seed {seed}: {explain(error)}"))
    return found


def resolve(config: DictConfig, choices: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain dict that a run is built from and recorded with."""
    given: Any = OmegaConf.to_container(config, resolve=False)
    refuse_unknown(given)
    if config.weights is not None:
        config, choices, overrides = of_published(config, overrides)
    raw: Any = OmegaConf.to_container(config, resolve=False)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    own.study.arms = own.study.seeds = None  # this run's own arm and seed are told
    for key in ("out", "study.name"):
        if not isinstance(OmegaConf.select(own, key), str):
            raise ConfigError(f"{key}={OmegaConf.select(own, key)}: text is expected")
    start = None if own.run is None else inherit(own, overrides)
    resolved = plain(own)
    parts, layers = [Part(raw, overrides, ("model", "data"))], dict[str, Any]()
    if start is None:
        layers, made = compose_layers(raw, resolved, overrides)
        parts += made
    else:  # its layers come with the model
        parts.append(Part(raw, overrides, ("block",)))
    refuse_unused(parts, overrides)
    train = resolved["train"]
    device = pick_device(train["device"])  # what auto stands for is part of what the run computes
    train["device"], train["precision"] = str(device), pick_precision(train["precision"], device)
    groups = {str(key): value for key, value in choices.items() if not str(key).startswith("hydra")}
    if resolved["stack"] is not None:
        groups["mixer"] = resolved["stack"]
    if start is not None:
        groups, layers = inherited_choices(groups, start["choices"]), start["layers"]
    return {**resolved, "layers": layers, "choices": groups}


def of_published(config: DictConfig, overrides: Sequence[str]) -> tuple[DictConfig, Any, list[str]]:
    """The config composed anew for the model of the weights that it names, with the choices and the words that did it."""
    if config.run is not None:
        raise ConfigError(f"run={config.run} and weights={config.weights}: a run starts from one of them")
    model = weights.overrides(weights.read_config(Path(config.weights)))
    for override in overrides:
        if key_of(override) in ("model", "size") and override not in model:
            raise ConfigError(f"{override}: weights={config.weights} says which model they belong to; leave it out")
    words = changed(model, overrides)
    composed = hydra.compose("config", overrides=words, return_hydra_config=True)
    chosen = any(key_of(override).split(".")[0] == "tokenizer" for override in overrides)
    data: Any = OmegaConf.to_container(composed.data, resolve=False)
    if not chosen and data.get("tokenizer") is not None:  # the model knows the tokens of its own
        words = [*words, *weights.tokenizer(Path(config.weights))]
        composed = hydra.compose("config", overrides=words, return_hydra_config=True)
    composed.study.arm = config.study.arm
    return composed, composed.hydra.runtime.choices, words
