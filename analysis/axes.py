"""The effect of each axis alone: in a grid of options, one level against another with everything else the same."""

from __future__ import annotations

import pandas as pd

from analysis.comparison import Comparison
from analysis.load import choices
from analysis.metric import usable
from analysis.sample import sign_flip_p, t_interval
from analysis.verdict import decide


def axis_effects(study: Comparison) -> pd.DataFrame:
    """One row per level of each varying axis, against the baseline's level; empty unless the study is a grid.

    Pairs agree in every other choice and in the seed. The differences of one seed are averaged first and the seeds are the
    sample (n), because the pairs of one seed share their noise. contexts: the number of settings of the other axes.
    The verdicts are corrected for the number of levels.
    """
    runs = usable(study.runs, study.metric.column)
    axes = [axis for axis in choices(runs) if runs[axis].nunique(dropna=False) > 1]
    columns = ["axis", "level", "base", "contexts", "n", "difference", "low", "high", "p", "smallest", "largest"]
    base = runs[runs["arm"] == study.baseline]
    rows = [
        _effect(runs, [other for other in axes if other != swap[0]], swap, study.metric.column)
        for swap in _swaps(runs, base, axes)
    ]
    table = decide(pd.DataFrame(rows, columns=columns), lower_is_better=study.metric.lower_is_better)
    is_grid = len(axes) > 1 and len(table) > 0 and bool((table["contexts"] > 1).all())
    return table if is_grid else table.iloc[:0]


def _swaps(runs: pd.DataFrame, base: pd.DataFrame, axes: list[str]) -> list[tuple[str, str, str]]:
    """(axis, level, the baseline's level) for each level that can replace the baseline's."""
    default = base.to_dict("records")[0] if len(base) else {}
    return [(axis, level, default[axis]) for axis in default if axis in axes for level in _others(runs[axis], default[axis])]


def _others(levels: pd.Series, default: str) -> list[str]:
    return sorted(level for level in levels.dropna().unique() if level != default)


def _effect(runs: pd.DataFrame, others: list[str], swap: tuple[str, str, str], column: str) -> tuple[object, ...]:
    axis, level, base = swap
    same = [*others, "seed", "tokens", "train.steps", "data_sha256"]
    rows = runs[[*same, axis, column]].astype(dict.fromkeys(same, str))  # as text, a missing value matches a missing value
    ours, theirs = (rows[rows[axis] == option].drop_duplicates(same) for option in (level, base))
    pairs = ours.merge(theirs, on=same, suffixes=("", "_base"))
    pairs = pairs.assign(difference=pairs[column] - pairs[f"{column}_base"])
    by_seed = pairs.groupby("seed")["difference"].mean().to_numpy(float)
    contexts = pairs.groupby([name for name in same if name != "seed"])["difference"].mean()
    return (
        axis,
        level,
        base,
        len(contexts),
        len(by_seed),
        *t_interval(by_seed),
        sign_flip_p(by_seed),
        contexts.min(),
        contexts.max(),
    )
