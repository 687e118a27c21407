"""The learning rate of every arm, found before the arms are compared: on seeds of its own, by the same trials for each."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

import numpy as np

from ..build.errors import ConfigError
from ..job import record
from ..job.run import Run
from ..job.study import Tuning

GROWTH = 4  # rates that a grid may grow by
LR = ", lr "  # between an arm's label and the rate, in the label of a trial
AROUND = 2  # rates on each side of the best that its smooth minimum is found from
Train = Callable[[list[Run]], object]
Arm = tuple[str, str]  # a study's name, and the hash of the arm as it was written


def tuned(runs: Sequence[Run], train: Train, refuse: Callable[[ConfigError], None]) -> list[Run]:
    """The runs, each at its arm's best rate. Arms that are one arm under two names are tuned once.

    Args:   train: trains what is left of some runs. The trials lie in the study <name>-tuning, and are done once.
            refuse: takes an arm that no rate trains; the others stay.
    """
    arms: dict[Arm, Run] = {}
    for run in runs:
        if run.study.tuning is not None:
            arms.setdefault(arm_of(run), as_tried(run))
    grids = {arm: sorted(tuning_of(run).rates) for arm, run in arms.items()}
    found: dict[Arm, float | None] = {}
    while open_arms := [arm for arm in arms if arm not in found]:
        train(in_turn([trials(arms[arm], grids[arm]) for arm in open_arms]))
        for arm in open_arms:
            run = arms[arm]
            if cut := [one.folder for one in trials(run, grids[arm]) if record.status(one.folder) not in record.ENDED]:
                found[arm] = None
                refuse(ConfigError(f"{run.name}: {len(cut)} trials of its learning rate have not ended, the first {cut[0]}"))
                continue
            losses = {rate: mean_loss(run, rate) for rate in grids[arm]}
            grown, tried = grow(losses), f"{min(losses):g} to {max(losses):g}"
            if grown is not None and len(losses) < len(tuning_of(run).rates) + GROWTH:
                grids[arm] = sorted([*losses, grown])
            elif all(math.isinf(loss) for loss in losses.values()):
                found[arm] = None
                refuse(ConfigError(f"{run.name}: no rate from {tried} trains it; take others in study.tuning.rates"))
            else:
                found[arm] = best = smooth_minimum(losses)
                edge = "" if grown is None else "; the best lies at the edge, so better ones may lie beyond"
                print(f"{run.name}: optim.lr={best:g}, of {len(losses)} rates from {tried}{edge}", flush=True)
    rates = {arm: rate for arm, rate in found.items() if rate is not None}
    kept = [run for run in runs if run.study.tuning is None or arm_of(run) in rates]
    return as_recorded([run if run.study.tuning is None else at_rate(run, rates[arm_of(run)]) for run in kept])


def in_turn(trials: Sequence[Sequence[Run]]) -> list[Run]:
    """One of each arm, then the next: a slow hour of the machine meets all of them."""
    longest = max(map(len, trials))
    return [arm[i] for i in range(longest) for arm in trials if i < len(arm)]


def arm_of(run: Run) -> Arm:
    return run.study.name, run.arm_hash


def tuning_of(run: Run) -> Tuning:
    assert run.study.tuning is not None
    return run.study.tuning


def at_rate(run: Run, rate: float) -> Run:
    return replace(run, optim={**run.optim, "lr": rate}, identity="")


def as_recorded(runs: Sequence[Run]) -> list[Run]:
    """Under the labels that their arms have already: whoever launches them knows an arm at the rate as written alone."""
    known = {folder: record.labels(folder) for folder in {run.folder.parent for run in runs}}
    return [run.labelled(known[run.folder.parent].get((run.study.arm, run.arm_hash), run.label)) for run in runs]


def as_tried(run: Run) -> Run:
    """Under the label that its arm's trials have, if there are any."""
    tried = trials(run, tuning_of(run).rates)
    known = [new.label for old, new in zip(tried, as_recorded(tried), strict=True) if new.label != old.label]
    return run.labelled(known[0].rpartition(LR)[0]) if known else run


def trials(run: Run, rates: Sequence[float]) -> list[Run]:
    """Every rate with every seed of the trials."""
    study = replace(run.study, name=f"{run.study.name}{record.TRIALS}", question=None, tuning=None, timing=None)
    return [
        replace(at_rate(run, rate), seed=seed, study=study, identity="", label=f"{run.label or run.name}{LR}{rate:g}")
        for seed in tuning_of(run).seeds
        for rate in rates
    ]


def mean_loss(run: Run, rate: float) -> float:
    """Over the seeds of the trials; infinite where one of them diverged."""
    losses = []
    for one in trials(run, [rate]):
        done = record.status(one.folder) == "done"
        loss = record.read_json(one.folder / record.SUMMARY)["metrics"]["val_loss"] if done else None
        losses.append(math.inf if loss is None else loss)
    return float(np.mean(losses))


def grow(losses: Mapping[float, float]) -> float | None:
    """The next rate where the best one is the first or the last; None where it lies between others."""
    rates = sorted(losses)
    best = min(rates, key=lambda rate: losses[rate])
    if math.isinf(losses[best]) or best == rates[0]:
        return rates[0] / 2
    return rates[-1] * 2 if best == rates[-1] else None


def smooth_minimum(losses: Mapping[float, float]) -> float:
    """The rate at the lowest point of a cubic through the best ones, over the logarithm of the rate: a single lucky point
    decides nothing. Between the neighbours of the best one in any case; to three digits."""
    finite = sorted(rate for rate in losses if math.isfinite(losses[rate]))
    best = min(range(len(finite)), key=lambda i: losses[finite[i]])
    near = finite[max(0, best - AROUND) : best + AROUND + 1]
    x, y = np.log2(near) - math.log2(finite[best]), np.array([losses[rate] for rate in near])
    low, high = (math.log2(finite[i] / finite[best]) for i in (max(0, best - 1), min(len(finite) - 1, best + 1)))
    if len(near) < 3:
        return finite[best]
    curve = np.polyfit(
        x, y, min(3, len(near) - 1)
    )  # losses rise faster above the best rate: a parabola would lean to small ones
    turns = [float(turn.real) for turn in np.roots(np.polyder(curve)) if turn.imag == 0 and low < turn.real < high]
    lowest = min([0.0, low, high, *turns], key=lambda place: np.polyval(curve, place))
    return float(f"{finite[best] * 2**lowest:.3g}")
