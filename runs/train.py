"""Train one run, or sweep many.

python -m runs.train ffn=moe mixer=gqa                      one run
python -m runs.train -m ffn=dense,moe norm=layernorm,rmsnorm seed=0,1,2 study.name=mine     a grid
python -m runs.train -m study=demo                          the arms of a study

The same command again does what is left: done runs stay, cut-off runs go on, failed ones are tried again.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import hydra
from hydra.core.hydra_config import HydraConfig
from omegaconf import DictConfig

from . import record
from .compose import configs
from .errors import ConfigError
from .explain import CONF, EXPECTED, explain
from .overrides import quoted

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
            from .check import check
            from .job import run

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


def main() -> int:
    """Check every point before the first is trained, then run them: one in this process, many as a sweep. An exit code."""
    from .check import check

    asked = collect()
    total = len(asked.points) + len(asked.refused)
    if total == 1 and asked.refused:
        raise asked.refused[0]
    points = []
    for point in asked.points:
        try:
            check(point)
            points.append(point)
        except (ValueError, OSError, record.RecordError) as error:
            if total == 1:
                raise
            asked.refused.append(ConfigError(f"{record.arm_name(point)} seed {point['seed']}: {explain(error)}"))
    for refusal in asked.refused:
        print(f"refused: {refusal}", file=sys.stderr)
    if not points:
        return 1
    statuses = single(points[0]) if total == 1 else sweep(points)
    good = sum(status in ("done", "diverged") for status in statuses)
    print(f"{good} of {total} runs done; report: python -m analysis.report {record.folder(points[0]).parent}")
    return 0 if good == total else 1


def single(config: dict[str, Any]) -> list[str]:
    from tqdm import tqdm

    from .job import run

    with tqdm(total=config["train"]["steps"], unit="step", disable=None) as bar:

        def watch(row: dict[str, Any]) -> None:
            bar.update(row["step"] - bar.n)
            if row["split"] == "train":
                bar.set_postfix_str(f"loss {row['loss']:.3f} {row['tokens_per_s'] / 1000:.1f}k tok/s")

        summary = run(config, watch)
    print(f"{record.folder(config)}: {summary['status']}", summary["error"] or "")
    for key, value in {**summary["metrics"], **summary["cost"]}.items():
        print(f"  {key:20} {value:,.4g}" if isinstance(value, (int, float)) else f"  {key:20} {value}")
    return [summary["status"]]


def sweep(points: list[dict[str, Any]]) -> list[str]:
    from .launcher import launch

    study = points[0]["study"]
    return launch(points, slots=study["slots"], timeout=study["timeout"])


if __name__ == "__main__":
    sys.exit(guarded(main))
