"""From the command line to resolved configs: Hydra composes, a study's arms are unfolded, what nothing uses is refused."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from .build import ConfigError, nearest

CONF = Path(__file__).resolve().parent.parent / "conf"
OPTIONAL = ("mixer", "pattern", "position", "score", "ffn", "router", "norm", "tokenizer")  # groups that a run may leave unused


def quotient(a: int, b: int) -> int:
    if b < 1 or a % b:
        raise ValueError(f"{b} does not divide {a}; {b * max(1, a // b) if b > 0 else a} would do")
    return a // b


def two_thirds(width: int) -> int:
    """The width of a gated ffn with as many parameters as an ungated one, to the nearest multiple of 8."""
    return max(8, round(2 * width / 3 / 8) * 8)


OmegaConf.register_new_resolver("quotient", quotient, replace=True)
OmegaConf.register_new_resolver("two_thirds", two_thirds, replace=True)


def configs(config: DictConfig) -> list[dict[str, Any]]:
    """All runs that one Hydra job stands for, resolved: one, or every arm with every seed of a study. Call inside Hydra.

    Seeds turn slowest: the arms of one seed are neighbours in time, so that a slow hour of the machine meets all of them.
    """
    overrides = list(HydraConfig.get().overrides.task)
    study = config.study
    if not study.arms and study.seeds is None:
        return [resolve(config, HydraConfig.get().runtime.choices, overrides)]
    found = []
    for seed in study.seeds if study.seeds is not None else [config.seed]:
        for arm, changes in (study.arms or {study.arm: []}).items():
            extra = [*changes, *([] if any(change.startswith("seed=") for change in changes) else [f"seed={seed}"])]
            keys = {key_of(override) for override in extra}
            kept = [override for override in overrides if key_of(override) not in keys]
            point = [*kept, *extra, f"study.arm={'null' if arm is None else arm}"]
            composed = hydra.compose("config", overrides=point, return_hydra_config=True)
            found.append(resolve(composed, composed.hydra.runtime.choices, point))
    return found


def key_of(override: str) -> str:
    return override.lstrip("+~").split("=")[0]


def resolve(config: DictConfig, choices: Any, overrides: Sequence[str]) -> dict[str, Any]:
    """The plain dict that a run is built from and recorded with."""
    raw: Any = OmegaConf.to_container(config, resolve=False)
    refuse_unknown(raw)
    refuse_unused(raw, overrides)
    own = OmegaConf.masked_copy(config, [str(key) for key in config if key != "hydra"])
    own.study.arms = own.study.seeds = None  # this run's own arm and seed are told
    try:
        resolved: Any = OmegaConf.to_container(own, resolve=True, throw_on_missing=True)
    except OmegaConfBaseException as error:
        reason = str(error).splitlines()[0].split("while resolving interpolation: ")[-1]
        raise ConfigError(f"{error.full_key}: {reason}") from None
    groups = {str(key): value for key, value in choices.items() if not str(key).startswith("hydra")}
    return {**resolved, "choices": groups}


def top_level_keys() -> list[str]:
    """The groups of conf/ and the keys of its config.yaml."""
    groups = {path.name for path in CONF.iterdir() if path.is_dir()}
    return sorted(groups | {str(key) for key in OmegaConf.load(CONF / "config.yaml")} - {"defaults", "hydra"})


def refuse_unknown(raw: dict[str, Any]) -> None:
    """`+key=value` can add anything at the top; only what conf/ knows has an effect."""
    known = top_level_keys()
    for key in raw:
        if key not in (*known, "hydra"):
            raise ConfigError(f"{key}: unknown key; {nearest(key, known)}")


def refuse_unused(raw: dict[str, Any], overrides: Sequence[str]) -> None:
    """A block that was asked for and that no part of the model refers to is an error, not silence."""
    used = references(raw, ("block", "model", "data"))
    for override in overrides:
        group = key_of(override)
        if group not in OPTIONAL or not isinstance(raw.get(group), dict):
            continue
        slots = [group] if "_target_" in raw[group] else [f"{group}.{slot}" for slot, node in raw[group].items() if node]
        for slot in slots:
            if not any(path == slot or path.startswith(f"{slot}.") for path in used):
                raise ConfigError(f"{override}: no part of this run uses a {group}; leave it out, or choose what does use it")


def references(raw: dict[str, Any], roots: Sequence[str]) -> set[str]:
    """Every `${path}` reachable from the given nodes."""
    found: set[str] = set()
    waiting = list(roots)
    while waiting:
        node: Any = raw
        for key in waiting.pop().split("."):
            node = node.get(key) if isinstance(node, dict) else None
        for path in re.findall(r"\$\{([a-z_][\w.]*)\}", str(node)):
            if path not in found:
                found.add(path)
                waiting.append(path)
    return found
