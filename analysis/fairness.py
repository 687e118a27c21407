"""What two runs must share to be compared: one table of conditions, and what follows where one is not met."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, NamedTuple

import pandas as pd

from analysis.digits import percent, si
from analysis.metric import counted, usable

TOLERANCE = 0.01  # of what a question says is equal


class Condition(NamedTuple):
    """A column that both runs must share. refuses: else their numbers must not be subtracted; or only with care."""

    column: str
    what: str
    refuses: bool


CONDITIONS = (
    Condition("data_sha256", "data", True),
    Condition("data", "data", True),
    Condition("train.steps", "steps", True),
    Condition("tokens", "training tokens", True),
    Condition("eval_tokens", "evaluation tokens", True),
    Condition("train.precision", "precision", False),
    Condition("device", "device", False),
    Condition("threads", "threads", False),
    Condition("git_commit", "code", False),
    Condition("git_dirty", "uncommitted changes", False),
)
OF_A_LOSS = (Condition("objective", "objective", True),)  # two objectives may aim at one accuracy, but their losses differ
OF_STEPS = ("train.steps", "tokens")  # differ where arms were made equal in seconds
PER_TOKEN = (Condition("tokenizer", "tokenizer", True),)


def conditions(column: str) -> tuple[Condition, ...]:
    """Those for a comparison of this column of the runs."""
    loss = OF_A_LOSS if column in ("val_loss", "val_bits_per_byte") else ()
    return CONDITIONS + loss + (PER_TOKEN if column == "val_loss" else ())


def same_seed_pairs(runs: pd.DataFrame, column: str, baseline: str) -> pd.DataFrame:
    """One row per arm and seed that both the arm and the baseline finished: both values, their difference, refused, caution.

    ``refused`` is the reason why the two numbers must not be subtracted (other data, other budget), empty where they may;
    ``caution`` what else they do not share, and which may have moved them.
    """
    shared = [condition for condition in conditions(column) if condition.column in runs]
    columns = [condition.column for condition in shared]
    found = usable(counted(runs, column), column)
    good = found[["arm", "seed", *columns]].assign(value=found[column])
    good = good.drop_duplicates(["arm", "seed"], keep="last")
    base = good[good["arm"] == baseline].drop(columns="arm").add_prefix("baseline_").rename(columns={"baseline_seed": "seed"})
    pairs = good[good["arm"] != baseline].merge(base, on="seed")
    timed = "match.budget" in runs and bool((runs["match.budget"] == "seconds").all())
    timed = timed and runs["match.target.train_flops"].nunique(dropna=False) == 1  # to the seconds of one baseline
    shared = [condition for condition in shared if not (timed and condition.column in OF_STEPS)]
    reasons: dict[bool, list[list[str]]] = {True: [[] for _ in pairs.index], False: [[] for _ in pairs.index]}
    for name, what, refuses in shared:
        mine, theirs = pairs[name], pairs[f"baseline_{name}"]
        for row in pairs.index[(mine != theirs) & ~(mine.isna() & theirs.isna())]:
            reasons[refuses][row].append(f"different {what} ({_as_text(mine[row])}, baseline {_as_text(theirs[row])})")
    pairs = pairs.assign(difference=pairs["value"] - pairs["baseline_value"])
    pairs["refused"] = [found[0] if found else "" for found in reasons[True]]
    pairs["caution"] = ["; ".join(found) for found in reasons[False]]
    return pairs[["arm", "seed", "value", "baseline_value", "difference", "refused", "caution"]]


def uneven(runs: pd.DataFrame, equal: Iterable[str], arm: str, baseline: str) -> str:
    """The first of these columns in which the arm is not equal with the baseline, to 1 %, with both numbers; else nothing."""
    for column in equal:
        means = [runs.loc[runs["arm"] == one, column].mean() if column in runs else float("nan") for one in (arm, baseline)]
        mine, theirs = means
        if pd.isna(mine) or pd.isna(theirs):
            return f"{column} is said to be equal, and is not recorded"
        if abs(mine - theirs) > TOLERANCE * abs(theirs):
            gap = percent(100 * (mine / theirs - 1)) if theirs else "no ratio"
            return f"{column} is said to be equal, and is {si(mine)} against the baseline's {si(theirs)} ({gap})"
    return ""


def thread_counts(runs: pd.DataFrame) -> list[str]:
    """The numbers of threads that all sessions of these runs had."""
    return sorted({count for counts in runs["threads"].dropna() for count in counts.split(", ")}, key=int)


def _as_text(value: Any) -> str:
    if pd.isna(value):
        return "not recorded"
    if isinstance(value, float) and value.is_integer():
        return f"{value:.0f}"
    return str(value)[:8] if len(str(value)) in (40, 64) else str(value)
