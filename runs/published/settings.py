"""Settings of a config.json: refused where our blocks do not express them, and written as overrides of our command line."""

from __future__ import annotations

import json
from typing import Any

from ..build.errors import ConfigError

Config = dict[str, Any]  # a config.json


def only(config: Config, **expressed: Any) -> None:
    """Refuse settings of which only one value is expressed; a config that does not name them has that one."""
    for key, value in expressed.items():
        if config.get(key, value) != value:
            raise ConfigError(f"{key}={config[key]!r} is not expressed here; only {value!r} is")


def flag(config: Config, key: str, default: bool = False) -> bool:
    value = config.get(key, default)
    if not isinstance(value, bool):
        raise ConfigError(f"{key} is {value!r}; true or false is expected")
    return value


def whole(key: str, value: Any) -> int:
    if not isinstance(value, int) or value < 1:
        raise ConfigError(f"{key} would be {value!r}; a whole number from 1 is expected")
    return value


def number(key: str, value: Any) -> float:
    if not isinstance(value, (int, float)):
        raise ConfigError(f"{key} would be {value!r}; a number is expected")
    return value


def sizes(**values: Any) -> list[str]:
    return wholes("size", **values)


def wholes(node: str, **values: Any) -> list[str]:
    """Overrides of whole numbers in one node of our config."""
    return [f"{node}.{key}={whole(key, value)}" for key, value in values.items()]


def shared(**values: Any) -> list[str]:
    return [f"shared.{key}={number(key, value)}" for key, value in values.items()]


def literal(value: Any) -> str:
    """A value as an override spells it."""
    return json.dumps(value)
