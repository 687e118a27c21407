"""The comparison of a study: its arms side by side, same-seed differences with their verdicts, claims, noise, Pareto front."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd

from analysis.claims import judged
from analysis.differences import paired_differences
from analysis.fairness import same_seed_pairs
from analysis.metric import MATCHED, Metric, called, choose_baseline, choose_metric, usable
from analysis.noise import noise_floor
from analysis.question import registered
from analysis.sorting import SetAside
from analysis.speed import paired_speeds
from analysis.tuning import Bill
from analysis.verdict import seeds_needed
from runs.job.question import Question
from runs.job.record import COSTS, SPEEDS, STATUSES, RecordError


@dataclass(frozen=True)
class Comparison:
    """A study's arms side by side. arms: a row per arm; speeds: the same, of those timed in turns (``paired_speeds``); pairs: a
    row per arm and seed; differences: a row per other arm; question: what the study registered, None if nothing, and claims: a
    row per prediction of it; asked_before: what is to be said where runs had another one. set_aside: the runs that none of
    these holds, since their records are damaged. tuning: the trials of the arms' learning rates, None where there were none."""

    runs: pd.DataFrame
    metric: Metric
    baseline: str
    arms: pd.DataFrame
    speeds: pd.DataFrame
    pairs: pd.DataFrame
    differences: pd.DataFrame
    question: Question | None
    asked_before: list[str]
    claims: pd.DataFrame
    noise: dict[str, Any]
    set_aside: Sequence[SetAside]
    tuning: Bill | None = None

    @property
    def explored(self) -> pd.DataFrame:
        """The differences that no claim and no A/A control is about."""
        return self.differences[~self.differences["twin"].astype(bool) & ~self.differences["claimed"].astype(bool)]

    @property
    def needed(self) -> int:
        """Seeds for a verdict, where so many claims are made, or so many arms are explored."""
        claimed = self.differences["claimed"].any()
        return seeds_needed(
            int((~self.claims["metric"].isin(COSTS)).sum()) if claimed else int(self.explored["p"].notna().sum())
        )

    @property
    def seeds(self) -> list[int]:
        """Of all arms but the A/A controls, which may have their own."""
        twins = self.differences.loc[self.differences["twin"].astype(bool), "arm"]
        return sorted(self.runs.loc[~self.runs["arm"].isin(twins), "seed"].unique().tolist())

    @property
    def in_turns(self) -> bool:
        """Whether any arm was timed in turns with the baseline: the speeds of others are no ground for a comparison."""
        return bool((self.speeds["sessions"].drop(self.baseline) > 0).any())

    @property
    def chance(self) -> float:
        """What guessing reaches, where the metric is an accuracy and all data have one such level; else nan."""
        levels = self.runs["chance"].dropna().unique()
        return float(levels[0]) if self.metric.column == "val_accuracy" and len(levels) == 1 else math.nan

    @cached_property
    def decimals(self) -> int:
        """Decimals of a result: two digits of the noise, of runs over seeds or, where it is less, of same-seed differences."""
        sd = float(np.fmin(self.noise["sd"], self.differences.loc[self.differences["sd"] > 0, "sd"].median()))
        return min(5, max(2, round(-math.log10(sd)) + 1)) if sd > 0 else 3


def compare(runs: pd.DataFrame, baseline: str | None = None, set_aside: Sequence[SetAside] = ()) -> Comparison:
    """The comparison of one study from its table of runs; ``baseline`` names an arm, None: as the study's config has it."""
    studies = sorted(runs["study"].unique())
    if len(studies) > 1:
        raise RecordError(f"{len(studies)} studies lie here ({', '.join(studies)}): name the folder of one of them")
    question, asked_before = registered(runs)
    metric = choose_metric(runs, question.metrics if question else ())
    chosen = choose_baseline(runs, baseline)
    arms, pairs = summarise(runs, metric), same_seed_pairs(runs, metric.column, chosen)
    speeds = paired_speeds(runs, chosen)
    claims = judged(runs, question, asked_baseline(runs))  # whoever reads may choose another one; what was predicted stays
    about = claims[(claims["metric"] == metric.column) & (claims["against"] == chosen)]
    differences = paired_differences(runs, pairs, arms, speeds, metric, chosen, about)
    noise = noise_floor(runs, metric, chosen)
    return Comparison(runs, metric, chosen, arms, speeds, pairs, differences, question, asked_before, claims, noise, set_aside)


def asked_baseline(runs: pd.DataFrame) -> str:
    """The arm that the study names, though it may not have run: what was asked about it is not asked about another."""
    named = [str(name) for name in runs["baseline"].dropna().unique()]
    return choose_baseline(runs) if not named or called(runs, named[0]) else named[0]


def short_names(study: Comparison) -> dict[str, str]:
    """A name for each arm beside its baseline: in a grid, only the options that differ ("moe + rotary"), else its own name.

    A dagger marks an arm that sees later tokens where the baseline does not.
    """
    base, arms = study.baseline.split(", "), [str(arm) for arm in study.arms.index]
    names = {arm: arm for arm in arms}
    if len(base) > 1 and all(len(arm.split(", ")) == len(base) for arm in arms):
        parts = {arm: [part for part, default in zip(arm.split(", "), base, strict=True) if part != default] for arm in arms}
        short = {arm: " + ".join(differing) or "baseline" for arm, differing in parts.items()}
        names = short if len(set(short.values())) == len(arms) else names
    ahead = non_causal_arms(study)
    return {arm: f"{name} †" if arm in ahead else name for arm, name in names.items()}


def non_causal_arms(study: Comparison) -> list[str]:
    """The arms that see later tokens where the baseline does not, and so cannot be compared with it."""
    causal = study.arms["causal"]
    return [str(arm) for arm in study.arms.index[~causal]] if causal[study.baseline] else []


def summarise(runs: pd.DataFrame, metric: Metric) -> pd.DataFrame:
    """Per arm, best first: mean, sd and n over seeds, how its runs ended, mean costs, mean and sd of the speeds."""
    arm = runs["arm"]
    good = usable(runs, metric.column)
    table = good.groupby("arm", dropna=False)[metric.column].agg(["mean", "std", "count"])
    table = table.set_axis(["mean", "sd", "n"], axis=1).reindex(arm.unique())
    table["n"] = table["n"].fillna(0).astype(int)
    for status in STATUSES:
        table[status] = (runs["status"] == status).groupby(arm, dropna=False).sum()
    table = table.join(runs.groupby("arm", dropna=False)[[*MATCHED, "train_flops", "tokens", "train.steps"]].mean())
    speeds = runs[runs["status"] == "done"].groupby("arm", dropna=False)[list(SPEEDS)]
    table = table.join(speeds.mean()).join(speeds.std().add_suffix("_sd"))
    table["causal"] = ~(runs["causal"] == False).groupby(arm, dropna=False).any()  # noqa: E712 (None is neither)
    return table.sort_values("mean", ascending=metric.lower_is_better, kind="stable", na_position="last")


def pareto_front(cost: pd.Series[float], result: pd.Series[float], *, lower_cost: bool, lower_result: bool) -> pd.Series[bool]:
    """Whether nothing else is at least as good on both and better on one; a missing number is never on the front."""
    x = cost.to_numpy(float) * (1 if lower_cost else -1)
    y = result.to_numpy(float) * (1 if lower_result else -1)
    beaten = [bool(((x <= a) & (y <= b) & ((x < a) | (y < b))).any()) for a, b in zip(x, y, strict=True)]
    return pd.Series(~np.array(beaten, dtype=bool) & np.isfinite(x) & np.isfinite(y), index=cost.index)
