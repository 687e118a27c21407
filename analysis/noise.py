"""What chance alone does to a result: over seeds, between arms of one same config, from one checkpoint to the next."""

from __future__ import annotations

import math
from itertools import combinations
from typing import Any

import numpy as np
import pandas as pd

from analysis.metric import Metric, usable
from analysis.sample import welch_interval

LAST = 5  # evaluations at the end of a run


def noise_floor(runs: pd.DataFrame, metric: Metric, baseline: str) -> dict[str, Any]:
    """The seed's own effect: sd pooled over arms with its degrees of freedom, and the gap between arms of one same config.

    band: the interval of the gap between the baseline and its own config under another name (an A/A arm), None without one.
    """
    good = usable(runs, metric.column)
    groups = [values.to_numpy(float) for _, values in good.groupby("arm", dropna=False)[metric.column] if len(values) > 1]
    df = sum(len(values) - 1 for values in groups)
    squares = sum(float(np.var(values, ddof=1)) * (len(values) - 1) for values in groups)
    twins, band = [], None
    for _, same in good.groupby("config", dropna=False):
        arms = sorted(same["arm"].unique(), key=lambda arm: (arm != baseline, arm))
        for one, other in combinations(arms, 2):
            a, b = (same.loc[same["arm"] == arm, metric.column].to_numpy(float) for arm in (one, other))
            difference, low, high = welch_interval(a, b)
            twins.append({"arm": one, "twin": other, "difference": difference, "low": low, "high": high})
            if one == baseline and math.isfinite(low):
                band = band or (low, high)
    return {"sd": math.sqrt(squares / df) if df else math.nan, "df": df, "twins": twins, "band": band}


def twins_of(runs: pd.DataFrame, baseline: str) -> set[str]:
    """The other arms that have the baseline's config: whatever they differ by is chance."""
    configs = runs.groupby("arm", dropna=False)["config"].first()
    return {str(arm) for arm in configs.index[configs == configs[baseline]] if arm != baseline}


def checkpoint_noise(curves: pd.DataFrame, metric: Metric) -> float:
    """How far a result moves from one of a run's last evaluations to the next, beside its trend: pooled over finished runs.

    sd = sqrt(mean((x_i+1 - 2 x_i + x_i-1)^2) / 6) over the last 5 evaluations, which a steady trend does not move

    Paper: Heineman 2025, arXiv:2508.13144 (that it follows the noise of seeds). Differs: their sd is not freed of the trend.
    """
    rows = curves[(curves["split"] == "val") & (curves["status"] == "done") & np.isfinite(curves[metric.curve])]
    last = rows.sort_values("step").groupby("run")[metric.curve].agg(lambda values: list(values)[-LAST:])
    bends = np.concatenate([np.diff(values, n=2) for values in last if len(values) > 2] or [np.array([])])
    return float(np.sqrt(np.mean(bends**2) / 6)) if len(bends) else math.nan
