"""The way in for every door: what a command line asks for, and its errors in one line."""

from __future__ import annotations

import os
import sys
import typing
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from .build.errors import ConfigError
from .build.objects import check_arguments
from .compose.compose import configs
from .compose.explain import CONF, EXPECTED, explain
from .compose.overrides import quoted
from .job import record

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
FULL_ERROR = "HYDRA_FULL_ERROR"


@dataclass
class Asked:
    """What a command stands for: Hydra calls its task once per point of a grid; we keep the points and run them."""

    points: list[dict[str, Any]] = field(default_factory=list)
    refused: list[ConfigError] = field(default_factory=list)


def collect() -> Asked:
    """The points of the command line."""
    asked = Asked()

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def keep(config: DictConfig) -> None:
        ours = HydraConfig.get().launcher._target_ == BASIC
        try:
            points = configs(config, refuse=asked.refused.append)
        except ConfigError as error:
            if not ours:
                raise
            asked.refused.append(error)
            return
        if ours:
            asked.points.extend(points)
        else:  # a cluster's launcher has already put this point in a process of its own, which reports back by its record
            from .job.check import check
            from .job.job import run

            for point in points:
                check(point)
                run(point)

    sys.argv = [sys.argv[0], *map(quoted, sys.argv[1:])]
    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # errors come to us whole, and are told in one line
    try:
        keep()
    finally:
        if before is None:
            del os.environ[FULL_ERROR]
    asked.points = list({record.folder(point): point for point in asked.points}.values())  # a point asked twice runs once
    return asked


def guarded(main: Callable[[], int]) -> int:
    """main's exit code; an expected error becomes one line on stderr and exit code 2."""
    try:
        return main()
    except KeyboardInterrupt:
        print("\nstopped; the same command goes on from here", file=sys.stderr)
        return 130
    except EXPECTED as error:
        if FULL_ERROR in os.environ:  # set by who wants the traceback
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2


def parse(words: Sequence[str], target: Callable[..., Any]) -> dict[str, Any]:
    """key=value words as arguments of target, by its annotations; a list's key may come more than once."""
    hints = typing.get_type_hints(target)
    values: dict[str, Any] = {}
    for word in words:
        key, equals, value = word.partition("=")
        if not equals:
            keys = ", ".join(hint for hint in hints if hint != "return")
            raise ConfigError(f"{word}: not of the form key=value; keys: {keys}")
        kinds = (hints.get(key), *typing.get_args(hints.get(key)))
        if list[str] in kinds:
            values.setdefault(key, []).append(value)
        elif key in values:
            raise ConfigError(f"{key}: given twice, as {values[key]} and as {value}")
        else:
            values[key] = _typed(value, kinds)
    check_arguments(target, values, target.__name__)
    return values


def _typed(value: str, kinds: Sequence[Any]) -> Any:
    """The value as the first kind that it fits, else as the text it is."""
    if value == "null" and type(None) in kinds:
        return None
    for kind in (int, float):
        if kind in kinds:
            try:
                return kind(value)
            except ValueError:
                continue
    return value
