"""What tuning found and what it cost: the trials of each arm's learning rate, which lie in the sister folder of a study."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.fairness import conditions
from analysis.kinds import printable
from analysis.load import Records, choices, read
from analysis.sorting import SetAside
from runs.job.record import TRIALS, RecordError

OF_TRIAL = re.compile(r"(.+), lr \S+", re.DOTALL)  # its label: the arm's, and the rate
SPENT = ["tokens", "flops", "seconds"]


@dataclass(frozen=True)
class Bill:
    """grid: a row per arm and rate: loss (the mean over the seeds of its trials, inf where one diverged), seeds, diverged.
    arms: a row per arm: chosen, the rate of its compared runs; best, the lowest loss; sensitivity, the mean of loss - best over
    the rates that all arms have tried and that trained it, and diverged, the number of those that did not; trials, and the
    tokens, flops and seconds that they took. share: of all training FLOPs of the study. others: trials that are not counted,
    since they were made for other data, another budget or other blocks than the arm has now.

    Paper: Wortsman 2023, arXiv:2309.14322 (learning rate sensitivity). Differs: a rate that diverges is counted, where they
    put the loss of an untrained model.
    """

    grid: pd.DataFrame
    arms: pd.DataFrame
    share: float
    others: int

    @property
    def trials(self) -> int:
        return int(self.arms["trials"].sum())

    def to_json(self) -> dict[str, Any]:
        tables = {"arms": self.arms.to_dict("records"), "grid": self.grid.to_dict("records")}
        return {"trials": self.trials, "share": self.share, "others": self.others} | tables


def read_trials(study: Path) -> tuple[Records | None, list[SetAside]]:
    """The trials of the study in this folder, None without any, and those whose record is damaged."""
    folder = study.with_name(f"{study.name}{TRIALS}")
    if not folder.is_dir():
        return None, []
    try:
        found = read(folder)
    except RecordError as error:
        return None, [SetAside(printable(folder.name), printable(str(error)))]
    return found, found.set_aside


def bill(study: Records, trials: Records) -> Bill | None:
    """None where no run is a trial of this study."""
    runs = study.runs.assign(label=_labels(study.runs))
    tried = trials.runs.assign(label=_labels(trials.runs).str.extract(f"^{OF_TRIAL.pattern}$", flags=re.DOTALL)[0])
    tried = tried.assign(rate=_numbers(tried, "optim.lr"), loss=_numbers(tried, "val_loss"))
    of_study = tried["label"].notna() & (tried["study"] == f"{runs['study'].iloc[0]}{TRIALS}")
    tried = tried[of_study & (tried["rate"] > 0) & np.isfinite(tried["rate"])]
    fitting = tried[_as_the_arms_are(tried, runs)]
    if fitting.empty:
        return None
    names = runs.groupby("label")["arm"].first()
    fitting = fitting.assign(arm=fitting["label"].map(names).fillna(fitting["label"]))
    grid = _grid(fitting)
    cost, whole = _spent(fitting, trials.curves), float(_spent(runs, study.curves)["flops"].sum())
    chosen = _numbers(runs, "optim.lr").groupby(runs["arm"]).first()
    arms = _of_arms(grid).join(chosen.rename("chosen")).join(cost.groupby(fitting["arm"]).sum())
    arms = arms.join(fitting.groupby("arm").size().rename("trials")).reset_index()
    flops = float(cost["flops"].sum())
    share = flops / (flops + whole) if flops > 0 else np.nan
    return Bill(grid, arms, share, len(tried) - len(fitting))


def _labels(runs: pd.DataFrame) -> pd.Series[str]:
    """What the runs were launched as: without what ``load`` adds where two arms have one label."""
    pairs = zip(runs["arm"], runs["config"], strict=True)
    return pd.Series([arm.removesuffix(f" ({config[:8]})") for arm, config in pairs], index=runs.index, dtype=object)


def _numbers(runs: pd.DataFrame, column: str) -> pd.Series[float]:
    """As numbers, whatever a record has there."""
    if column not in runs:
        return pd.Series(np.nan, index=runs.index)
    return pd.to_numeric(runs[column], errors="coerce").astype(float)


def _as_the_arms_are(tried: pd.DataFrame, runs: pd.DataFrame) -> pd.Series[bool]:
    """Whether a trial shares with its arm all that its loss depends on; where no run of the arm is there, it is as it is."""
    wanted = [one.column for one in conditions("val_loss") if one.refuses] + choices(runs)
    shared = ["label", *dict.fromkeys(name for name in wanted if name in tried and name in runs)]
    known = set(runs[shared].astype(str).itertuples(index=False, name=None))
    alike = [row in known for row in tried[shared].astype(str).itertuples(index=False, name=None)]
    return pd.Series(alike, index=tried.index, dtype=bool) | ~tried["label"].isin(runs["label"])


def _grid(tried: pd.DataFrame) -> pd.DataFrame:
    ended = tried[tried["status"].isin(["done", "diverged"])]
    lost = (ended["status"] == "diverged") | ~np.isfinite(ended["loss"])
    cells = ended.assign(loss=ended["loss"].mask(lost, np.inf), diverged=lost).groupby(["arm", "rate"], sort=True)
    return cells.agg(loss=("loss", "mean"), seeds=("seed", "nunique"), diverged=("diverged", "sum")).reset_index()


def _of_arms(grid: pd.DataFrame) -> pd.DataFrame:
    everywhere = grid.groupby("rate")["arm"].transform("nunique") == grid["arm"].nunique()
    best = grid.groupby("arm")["loss"].min()
    excess = (grid["loss"] - grid["arm"].map(best))[everywhere & np.isfinite(grid["loss"])]
    arm, lost = grid["arm"], everywhere & np.isinf(grid["loss"])
    columns = {"best": best, "sensitivity": excess.groupby(arm).mean(), "diverged": lost.groupby(arm).sum()}
    ends = grid.groupby("arm")["rate"].agg(["min", "max", "count"]).set_axis(["lowest_rate", "highest_rate", "rates"], axis=1)
    return pd.DataFrame(columns).join(ends)


def _spent(runs: pd.DataFrame, curves: pd.DataFrame) -> pd.DataFrame:
    """What each run has really taken, as its last row says: a diverged one less than was planned."""
    last = curves.groupby("run")[SPENT].max()
    return last.reindex(runs["run"]).set_axis(runs.index).fillna(0.0)
