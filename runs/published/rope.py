"""Rotary frequencies scaled to texts longer than those of the training: rope_scaling and position=rotary_*, both ways."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from arch.position import LinearScaling, Llama3Scaling, YaRNScaling

from ..build.errors import ConfigError
from .nodes import at
from .settings import NUMBERS, Config, literal, number, shown

SCALING = "position.relative.scaling"
ORIGINAL = "original_max_position_embeddings"

Names = Mapping[str, str]  # arguments of our class -> entries of rope_scaling
RAMP = {"factor": "factor", "trained_seq": ORIGINAL}
LINEAR = {"factor": "factor"}
LLAMA3 = {**RAMP, "slow": "low_freq_factor", "fast": "high_freq_factor"}
YARN = {**RAMP, "slow": "beta_slow", "fast": "beta_fast"}
CLASSES = {LinearScaling: ("linear", LINEAR), Llama3Scaling: ("llama3", LLAMA3), YaRNScaling: ("yarn", YARN)}
TEMPERATURE = {"temperature": "attention_factor"}  # of YaRN, in all families but DeepSeek's
BETAS = {"beta_slow": 1, "beta_fast": 32}  # of YaRN, where the config does not name them


def parameters(config: Config) -> Config:
    """All that a config says of rotary positions: since transformers 5 in one entry, before that in several."""
    above = {key: config[key] for key in ("rope_theta", "partial_rotary_factor") if key in config}
    key = "rope_parameters" if config.get("rope_parameters") else "rope_scaling"
    found = config.get(key) or {}
    if not isinstance(found, dict):
        raise ConfigError(f"{key} is {shown(found)}; an object with a rope_type is expected, or null")
    return above | found


def theta(config: Config, default: float = 10000.0) -> float:
    """The base of the frequencies; they have to fall."""
    return number("rope_theta", parameters(config).get("rope_theta", default), least=2)


def scaling(config: Config) -> tuple[Config, str]:
    """What a config says of the scaling, and its type."""
    unscaled = ("rope_theta", "partial_rotary_factor")
    found = {key: value for key, value in parameters(config).items() if value is not None and key not in unscaled}
    kind = found.pop("type", "default")
    kind = found.pop("rope_type", kind)
    if not isinstance(kind, str):
        raise ConfigError(f"rope_scaling of type {shown(kind)} is not expressed here; a name such as linear is expected")
    return found, kind


def overrides(config: Config) -> list[str]:
    """Of all families but DeepSeek's."""
    found, kind = scaling(config)
    if kind != "yarn":
        return overrides_but_yarn(found, kind, {"linear": LINEAR, "llama3": LLAMA3})
    found = {**BETAS, ORIGINAL: config["max_position_embeddings"], **found}
    mscale, mscale_all_dim = found.pop("mscale", None), found.pop("mscale_all_dim", None)
    temperature = found.pop("attention_factor", None)
    if found.pop("truncate", True) is not True:
        raise ConfigError("rope_scaling.truncate=false is not expressed here; only true is")
    words = scaled(found, "rotary_yarn", YARN)
    given = {"attention_factor": temperature, "mscale": mscale, "mscale_all_dim": mscale_all_dim}
    for key, value in given.items():
        if value is not None:
            number(f"rope_scaling.{key}", value)
    if temperature is None and mscale and mscale_all_dim:  # one of them alone is not read
        both = YaRNScaling(factor=found["factor"], trained_seq=1, mscale=mscale, mscale_all_dim=mscale_all_dim)
        temperature = both.temperature / both.unrotated_temperature
    return [*words, f"{SCALING}.ramp=channels", f"{SCALING}.temperature={literal(temperature)}"]


def overrides_but_yarn(found: Config, kind: str, expressed: Mapping[str, Names]) -> list[str]:
    """Of the expressed types, each with its names, all but yarn."""
    if kind == "default":
        return []
    if kind not in expressed:
        raise ConfigError(f"rope_scaling of type {shown(kind)} is not expressed here; {', '.join(expressed)} and yarn are")
    return scaled(found, f"rotary_{kind}", expressed[kind])


def scaled(found: Config, option: str, names: Names) -> list[str]:
    """The overrides of one of the options position=rotary_*."""
    if unknown := found.keys() - {*names.values(), "finetuned"}:
        raise ConfigError(f"rope_scaling.{min(unknown)}={shown(found[min(unknown)])} is not expressed here")
    words = [f"position={option}"]
    for ours, theirs in names.items():
        if theirs not in found:
            raise ConfigError(f"rope_scaling.{theirs} is missing")
        least = 0.0 if theirs.startswith("mscale") else NUMBERS[0]  # all others are divided by
        words.append(f"{SCALING}.{ours}={number(f'rope_scaling.{theirs}', found[theirs], least)}")
    return words


def rope_scaling(position: Any, temperatures: Names = TEMPERATURE) -> Config | None:
    """The entry of a completed rotary position; null where it is not scaled, or in a way that no config.json expresses."""
    node = at(position, "scaling")
    kind, names = CLASSES.get(at(node, "_target_"), ("", {}))
    if kind == "yarn":
        names = {**names, **temperatures}
    given = {theirs: node[ours] for ours, theirs in names.items() if node[ours] is not None}
    return {"rope_type": kind, **given} if kind else None
