"""Equal seconds: how long a step of each arm takes is measured here, and an arm that is slower makes fewer of them."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Sequence
from dataclasses import replace

from ..build.errors import ConfigError
from ..compose.match import of_seconds
from ..job import record
from ..job.run import Run
from .tune import Arm, Train, arm_of, in_turn

TIMED = "-pace"  # ends the name of the study that the timed runs belong to
STEPS = 2  # that a timed run is trained for, to have a record
TIMES = 5  # processes that time every arm, of which the middle one counts
TURNS = 20


def paced(runs: Sequence[Run], train: Train, refuse: Callable[[ConfigError], None]) -> list[Run]:
    """The runs, each with as many steps as take as long as those of its study's baseline.

    Args:   train: trains what is left of some runs, one at a time. Those of an arm lie in the study <name>-pace, and are done
            once: the same command finds the same steps. refuse: takes an arm whose runs have not ended; the others stay.
    Raises: ConfigError: the baseline has no speed.
    """
    asked: dict[Arm, Run] = {}
    for run in runs:
        if of_seconds(run):
            asked.setdefault(arm_of(run), run)
    train(in_turn([timed(run) for run in asked.values()]))
    speeds = {arm: steps_ms(run) for arm, run in asked.items()}
    baseline = min(asked, key=lambda arm: asked[arm].name != asked[arm].study.baseline)  # in a grid, the first
    base, steps_of = speeds[baseline], dict[Arm, int]()
    if base is None:
        raise ConfigError(f"match=seconds: the timed runs of the baseline {asked[baseline].name} have not ended")
    for arm, run in asked.items():
        own, steps = speeds[arm], asked[baseline].settings.steps
        if run.settings.steps != steps:
            refuse(
                ConfigError(
                    f"{run.name}: train.steps={run.settings.steps} fixes the steps that match=seconds would solve, and its "
                    f"baseline has {steps}; leave one of the two out"
                )
            )
        elif own is None:
            refuse(ConfigError(f"{run.name}: its timed runs have not ended, see {timed(run)[0].folder.parent}"))
        else:
            ratio = statistics.median(mine / theirs for mine, theirs in zip(own, base, strict=True))
            steps = max(1, round(steps / ratio))
            print(
                f"match=seconds: {run.name}: a step takes {ratio:.2f} times the baseline's, so train.steps={steps}", flush=True
            )
            steps_of[arm] = steps
    return [at_pace(run, steps_of[arm_of(run)]) for run in runs if arm_of(run) in steps_of]


def timed(run: Run) -> list[Run]:
    study = replace(run.study, name=f"{run.study.name}{TIMED}", question=None, tuning=None, slots=1, timing=TURNS)
    short = replace(run.settings, steps=STEPS, eval_every=STEPS, eval_batches=1, checkpoint_every=None)
    return [
        replace(run, seed=seed, study=study, settings=short, match=None, identity="", label=run.name) for seed in range(TIMES)
    ]


def steps_ms(run: Run) -> list[float] | None:
    """Of every process; None where one of them could not time it."""
    files = [one.folder / record.TIMING for one in timed(run)]
    return [record.read_json(file)["step_ms"] for file in files] if all(file.is_file() for file in files) else None


def at_pace(run: Run, steps: int) -> Run:
    assert run.match is not None
    flops = run.match["reached"]["train_flops"] * steps / run.settings.steps
    match = {**run.match, "solved": {"train.steps": steps}, "reached": {**run.match["reached"], "train_flops": flops}}
    return replace(run, settings=replace(run.settings, steps=steps), match=match, identity="")
