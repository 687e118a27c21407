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

    An arm that has been timed beside the baseline keeps its pace; those that are new are timed beside it once more.

    Args:   train: trains what is left of some runs, one at a time, and times them in turns. Those of an arm lie in the study
            <name>-pace, and are done once: the same command finds the same steps. refuse: takes an arm whose runs have not
            ended; the others stay.
    """
    asked: dict[Arm, Run] = {}
    for run in runs:
        if of_seconds(run):
            asked.setdefault(arm_of(run), run)
    baseline = asked[min(asked, key=lambda arm: asked[arm].name != asked[arm].study.baseline)]  # in a grid, the first
    left = [run for run in asked.values() if run is not baseline and pace(run, baseline) is None]
    if left:
        train(in_turn([timed(run) for run in (baseline, *left)]))
    steps_of = dict[Arm, int]()
    for arm, run in asked.items():
        steps = baseline.settings.steps
        if run.settings.steps != steps:
            refuse(
                ConfigError(
                    f"{run.name}: train.steps={run.settings.steps} fixes the steps that match=seconds would solve, and its "
                    f"baseline has {steps}; leave one of the two out"
                )
            )
        elif (ratio := pace(run, baseline)) is None:
            refuse(ConfigError(f"{run.name}: it has not been timed beside {baseline.name}, see {timed(run)[0].folder.parent}"))
        else:
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


def pace(run: Run, baseline: Run) -> float | None:
    """How many times the baseline's step takes a step, in the middle one of the processes that timed both; None where one of
    them is missing. An arm's own files hold the baseline's time beside its own, so what is timed later does not change it."""
    if run is baseline:
        return 1.0
    ratios = []
    for mine, theirs in zip(timed(run), timed(baseline), strict=True):
        try:
            timing = record.read_json(mine.folder / record.TIMING)
            ratios.append(timing["step_ms"] / timing["beside"][theirs.identity])
        except (record.RecordError, OSError, KeyError, TypeError):  # a list: as an earlier version has written them
            return None
    return statistics.median(ratios)


def at_pace(run: Run, steps: int) -> Run:
    assert run.match is not None
    flops = run.match["reached"]["train_flops"] * steps / run.settings.steps
    match = {**run.match, "solved": {"train.steps": steps}, "reached": {**run.match["reached"], "train_flops": flops}}
    return replace(run, settings=replace(run.settings, steps=steps), match=match, identity="")
