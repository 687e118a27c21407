"""The points of a command line, each composed once: Hydra's own sweeper composes every point of a grid twice."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable, Sequence

import hydra
from hydra._internal.core_plugins.basic_launcher import BasicLauncherConf
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper, BasicSweeperConf
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.plugins.config_source import ConfigSource
from hydra.types import RunMode
from omegaconf import DictConfig, open_dict

from .explain import CONF
from .overrides import key_of

MANY = {"-m", "--multirun"}


def each_point(words: Sequence[str], task: Callable[[DictConfig, DictConfig], None]) -> bool:
    """Call a task with the config of every point in turn and Hydra's part of it, as Hydra would in this process.

    False: it has not been called, since the command asks more of Hydra than to compose: its help, another launcher or
    sweeper, a sweep that a file of conf/ describes.
    """
    said = [word for word in words if word not in MANY]
    if any(word.startswith("-") or (key_of(word).startswith("hydra") and key_of(word) != "hydra.searchpath") for word in said):
        return False
    with hydra.initialize_config_dir(str(CONF), version_base="1.3"):
        loader = GlobalHydra.instance().config_loader()
        for source in loader.get_sources():
            read_once(source)
        many, grid = len(said) < len(words), [said]
        if many:
            overrides = OverridesParser.create(config_loader=loader).parse_overrides(said)
            (grid,) = BasicSweeper.split_arguments(overrides, max_batch_size=None)
        for number, point in enumerate(grid):
            config = loader.load_configuration("config", point, run_mode=RunMode.RUN)
            if number == 0 and not is_plain(config.hydra):
                return False
            with open_dict(config.hydra):
                config.hydra.mode, config.hydra.job.num = RunMode.MULTIRUN if many else RunMode.RUN, number
            task(config, config.hydra)
    return True


def is_plain(job: DictConfig) -> bool:
    """Whether Hydra has nothing to do here but to compose."""
    own = job.launcher == vars(BasicLauncherConf()) and job.sweeper == vars(BasicSweeperConf())
    return bool(own and job.mode is None and not job.callbacks)


def read_once(source: ConfigSource) -> None:
    """Let a folder of configs read each of them once: a grid takes the same files for every point."""
    read = functools.cache(source.load_config)
    source.load_config = lambda config_path: copy.deepcopy(read(config_path))  # type: ignore[method-assign]  # Hydra changes it
