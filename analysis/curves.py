"""What the runs of an arm have in common over training: held-out results and same-seed differences, a row per evaluation."""

from __future__ import annotations

import numpy as np
import pandas as pd

from analysis.comparison import Comparison

SPENT = ("tokens", "flops", "seconds")  # until an evaluation


def mean_curves(study: Comparison, rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and range over seeds per arm and evaluation; diverged runs one by one (a mean over survivors would hide them)."""
    value = study.metric.curve
    rows = rows[(rows["split"] == "val") & np.isfinite(rows[value])]
    done = rows[rows["status"] == "done"].groupby(["arm", "step"], dropna=False)
    mean = done[value].agg(["mean", "min", "max", "count"]).join(done[[*SPENT]].mean()).reset_index()
    diverged = rows[rows["status"] == "diverged"]
    parts = [mean.assign(status="done", run="")]
    if len(diverged):
        parts.append(diverged.assign(mean=diverged[value], min=diverged[value], max=diverged[value], count=1))
    columns = ["arm", "status", "run", "step", *SPENT, "mean", "min", "max", "count"]
    return pd.concat([part[columns] for part in parts], ignore_index=True)


def mean_gaps(study: Comparison, rows: pd.DataFrame) -> pd.DataFrame:
    """Mean and range of the same-seed difference per arm and evaluation, for the arms that may be compared."""
    value = study.metric.curve
    results = rows.loc[
        (rows["split"] == "val") & (rows["status"] == "done") & np.isfinite(rows[value]), ["arm", "seed", "step", value]
    ]
    base = results.loc[results["arm"] == study.baseline, ["seed", "step", value]]
    fair = study.differences.loc[(study.differences["reading"] != "refused") & (study.differences["n"] > 0), "arm"]
    pairs = results[results["arm"].isin(fair)].merge(base, on=["seed", "step"], suffixes=("", "_base"))
    pairs = pairs.assign(difference=pairs[value] - pairs[f"{value}_base"])
    return pairs.groupby(["arm", "step"])["difference"].agg(["mean", "min", "max", "count"]).reset_index()
