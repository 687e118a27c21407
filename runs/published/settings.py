"""Settings of a config.json: refused where our blocks do not express them, and written as overrides of our command line."""

from __future__ import annotations

import json
import reprlib
from typing import Any

from ..build.errors import ConfigError

Config = dict[str, Any]  # a config.json, of which nothing is known: an entry may hold whatever JSON can

LARGEST = 2**31 - 1  # of whole numbers; products of two of them can still be told
NUMBERS = (1e-30, 1e30)  # least and largest of all but 0; powers and ratios of them can still be told


def only(config: Config, **expressed: Any) -> None:
    """Refuse settings of which only one value is expressed; a config that does not name them has that one."""
    for key, value in expressed.items():
        if config.get(key, value) != value:
            raise ConfigError(f"{key}={shown(config[key])} is not expressed here; only {value!r} is")


def flag(config: Config, key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {shown(value)}; true or false is expected")
    return value


def whole(key: str, value: Any, least: int = 1) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= LARGEST:
        raise ConfigError(f"{key} would be {shown(value)}; a whole number from {least} is expected, at most {LARGEST:,}")
    return value


def dividing(key: str, value: Any, d_model: Any) -> int:
    """A number of heads, each of which gets an equal part of the width."""
    heads = whole(key, value)
    if whole("d_model", d_model) % heads:
        raise ConfigError(f"{key} is {heads}, which does not divide d_model, {d_model}")
    return heads


def number(key: str, value: Any, least: float = 0.0) -> float:
    """JSON as Python reads it has NaN and Infinity, and truths are numbers: none of them is one here."""
    if not isinstance(value, (int, float)) or isinstance(value, bool) or not (value == 0 or NUMBERS[0] <= value <= NUMBERS[1]):
        raise ConfigError(f"{key} would be {shown(value)}; a number is expected, from {least:g} to {NUMBERS[1]:g}")
    if value < least:
        raise ConfigError(f"{key} would be {shown(value)}; a number from {least:g} is expected")
    return value


def sizes(**values: Any) -> list[str]:
    return wholes("size", **values)


def wholes(node: str, **values: Any) -> list[str]:
    """Overrides of whole numbers in one node of our config."""
    return [f"{node}.{key}={whole(key, value)}" for key, value in values.items()]


def shared(**values: Any) -> list[str]:
    return [f"shared.{key}={number(key, value)}" for key, value in values.items()]


def shown(value: Any) -> str:
    """A value as a message says it: what is long or deep is cut."""
    return _SHORT.repr(value)


_SHORT = reprlib.Repr()
_SHORT.maxstring = _SHORT.maxother = 80


def literal(value: Any) -> str:
    """A value as an override spells it."""
    return json.dumps(value)
