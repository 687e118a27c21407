"""Speeds: which of them may be held against each other, and how fast each arm is beside its baseline."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from analysis.digits import NONE, fixed, times
from analysis.sample import t_interval

UNFIT = "not timed in turns"  # a speed as in training: whatever else went on meanwhile is part of it
SPEED = ("speed", "speed_low", "speed_high")
RATE = ("rate", "rate_low", "rate_high")


def paired_speeds(runs: pd.DataFrame, baseline: str) -> pd.DataFrame:
    """A row per arm: sessions, in which it was timed in turns beside the baseline; speed, how many times as fast it is, with
    speed_low and speed_high; rate, rate_low and rate_high, the same in tokens per second: times the baseline's mean there.

    An arm that was not timed in one process with the baseline has no such number. The baseline's own speed is 1.
    """
    timed = runs[(runs["status"] == "done") & runs["timed"].notna() & (runs["tokens_per_s"] > 0)]
    rates = timed.pivot_table("tokens_per_s", index="timed", columns="arm", dropna=False)
    rows = []
    for arm in map(str, runs["arm"].unique()):
        logs = np.log(rates[[baseline, arm]].dropna().to_numpy(float)) if {baseline, arm} <= set(rates) else np.empty((0, 2))
        base = float(np.exp(logs[:, 0].mean())) if len(logs) else math.nan
        ends = np.exp(t_interval(logs[:, 1] - logs[:, 0])).tolist() if arm != baseline else [1.0 if len(logs) else math.nan] * 3
        row = {"arm": arm, "sessions": len(logs), **dict(zip(SPEED, ends, strict=True))}
        rows.append(row | dict(zip(RATE, (base * end for end in ends), strict=True)))
    return pd.DataFrame(rows).set_index("arm")


def told(row: Mapping[Any, Any]) -> str:
    """0.62x [0.60, 0.64]; without an interval where there was one session; a dash where there was none."""
    speed, low, high = (row[name] for name in SPEED)
    ends = f" [{fixed(low, 2)}, {fixed(high, 2)}]" if math.isfinite(low) else ""
    return f"{times(speed)}{ends}" if math.isfinite(speed) else NONE


def speed_conditions(runs: pd.DataFrame) -> dict[str, set[Any]]:
    """arm -> what its speed depends on beside the model: the sessions in which its finished runs were timed in turns with
    others, or where one was not, the (device, threads) of them all."""
    found: dict[str, set[Any]] = {}
    for arm, mine in runs[runs["status"] == "done"].groupby("arm", dropna=False):
        apart = zip(mine["device"], mine["threads"], strict=True)
        found[str(arm)] = set(mine["timed"] if mine["timed"].notna().all() else apart)
    return found


def timed_together(found: dict[str, set[Any]], *arms: str) -> bool:
    """Whether all runs of these arms were timed, in the same sessions."""
    first, *others = (found.get(arm, set()) for arm in arms)
    return bool(first) and all(isinstance(session, str) for session in first) and all(first == other for other in others)


def comparable_speeds(found: dict[str, set[Any]], *arms: str) -> bool:
    """Whether the runs of these arms were timed together or, from beginning to end, had one device and number of threads."""
    if timed_together(found, *arms):
        return True
    machines = set().union(*(found.get(arm, set()) for arm in arms))
    return len(machines) == 1 and not any(isinstance(one, str) or pd.isna(one[1]) or "," in one[1] for one in machines)
