"""The way in for every door: what a command line asks for, and its errors in one line."""

from __future__ import annotations

import os
import signal
import sys
import typing
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, cast

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from .build.errors import ConfigError
from .build.objects import check_arguments
from .compose.arms import points, said
from .compose.compose import Point
from .compose.effect import refuse_idle
from .compose.explain import CONF, EXPECTED, explain, search
from .compose.grid import each_point
from .compose.labels import labelled
from .compose.match import Equal, alone
from .compose.overrides import key_of, normal
from .job.run import Run
from .job.stop import SIGNALS, Stopped, at_once

BASIC = "hydra._internal.core_plugins.basic_launcher.BasicLauncher"
FULL_ERROR = "HYDRA_FULL_ERROR"


@dataclass
class Command:
    """What a command line asks for. runs: with their labels. refused: why points of it cannot be."""

    runs: list[Run] = field(default_factory=list)
    refused: list[ConfigError] = field(default_factory=list)

    @property
    def total(self) -> int:
        return len(self.runs) + len(self.refused)


def collect(reads: Collection[str] = ()) -> Command:
    """The runs of the command line: a task is called once per point of a grid, and here the points are gathered.

    Points that come out as the same run are one, which a line says; a word that no point reads is refused.
    Args:   reads: keys that the door itself reads.
    Raises: ConfigError: a word without effect, or one key given twice.
    """
    command, found = Command(), list[Point]()
    grid = Equal()
    words, judged = dict[str, None](), set[str]()  # all that were said, and those that had an effect or met an error first

    def gather(config: DictConfig, job: DictConfig) -> None:
        ours = job.launcher._target_ == BASIC
        here_said, before = said(job)["task"], len(command.refused)
        words.update(dict.fromkeys(here_said))
        try:
            here = points(config, job, refuse=command.refused.append, grid=grid)
        except ConfigError as error:
            if not ours:
                raise
            command.refused.append(error)
            here = []
        judged.update(here_said if len(command.refused) > before else [], *(point.read for point in here))
        if ours:
            found.extend(here)
        else:  # a cluster's launcher has already put this point in a process of its own, which reports back by its record
            from .job.check import check_here
            from .job.execute import execute

            for run in labelled(here):
                check_here(run)
                execute(run)

    search(sys.argv[1:])
    refuse_given_twice(sys.argv[1:])
    sys.argv = [sys.argv[0], *map(normal, sys.argv[1:])]
    if not each_point(sys.argv[1:], gather):
        by_hydra(gather)
    refuse_idle(word for word in words if word not in judged and key_of(word) not in reads)
    if len(grid.found) == 1 and not command.refused:
        raise alone(*(one["budget"] for one in grid.found.values()))
    command.runs = once(found)
    return command


def by_hydra(task: Callable[[DictConfig, DictConfig], None]) -> None:
    """Leave the command line to Hydra, which calls the task where its launcher wants it."""

    @hydra.main(version_base="1.3", config_path=str(CONF), config_name="config")
    def called(config: DictConfig) -> None:
        task(config, cast(DictConfig, HydraConfig.get()))

    before = os.environ.get(FULL_ERROR)
    os.environ[FULL_ERROR] = "1"  # errors come to us whole, and are said in one line
    try:
        called()
    finally:
        if before is None:
            del os.environ[FULL_ERROR]


def refuse_given_twice(words: Sequence[str]) -> None:
    said: dict[str, str] = {}
    for word in words:
        key = key_of(word)
        if "=" in word and said.setdefault(key, word) is not word:
            raise ConfigError(f"{key}: given twice, as {said[key]} and as {word}; give it once (a grid: -m {key}=one,other)")


def once(found: Sequence[Point]) -> list[Run]:
    """Each run once. Two names for one run are two arms: their difference is the noise of the machine."""
    first: dict[tuple[str, str | None, str], Run] = {}
    again = []
    for run in labelled(found):
        same = first.setdefault((run.study.name, run.study.arm, run.identity), run)
        again += [] if same is run else [run.title]
    if again:
        more = ", ..." if len(again) > 3 else ""
        print(f"{len(again)} of {len(found)} points come out as runs that are there already: {', '.join(again[:3])}{more}")
    runs = list(first.values())
    folders = {run.folder: run for run in runs}
    for run in runs:
        if folders[run.folder] is not run:
            one, other = run.study.arm, folders[run.folder].study.arm
            raise ConfigError(f"study.arms: {one} and {other} are one run and make one folder; name one of them otherwise")
    return runs


def guarded(main: Callable[[], int]) -> int:
    """main's exit code; an expected error becomes one line on stderr and exit code 2, and so does a signal that asks to end,
    with 128 and its number."""
    before = {one: signal.signal(one, at_once) for one in SIGNALS}
    try:
        return main()
    except Stopped as stopped:
        print(f"\nstopped by {stopped}; the same command goes on from here", file=sys.stderr)
        return stopped.code
    except BrokenPipeError:  # as of `| head`: who reads has read enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except EXPECTED as error:
        if FULL_ERROR in os.environ:  # set by who wants the traceback
            raise
        print(f"error: {explain(error)}", file=sys.stderr)
        return 2
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)


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
