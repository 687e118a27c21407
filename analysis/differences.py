"""Same-seed differences from the baseline: one row per arm with its interval, p, verdict, costs and caveats."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.metric import MATCHED, Metric, usable
from analysis.noise import twins_of
from analysis.sample import bca_interval, sign_flip_p, t_interval, welch_interval
from analysis.speed import SPEED
from analysis.verdict import decide, seeds_needed, too_few


def paired_differences(
    runs: pd.DataFrame,
    pairs: pd.DataFrame,
    arms: pd.DataFrame,
    speeds: pd.DataFrame,
    metric: Metric,
    baseline: str,
    claims: pd.DataFrame,
) -> pd.DataFrame:
    """One row per other arm: mean same-seed difference, its intervals, exact sign-flip p, verdict, and the costs beside it.

    An arm that a claim is about has the verdict of the claim; the others were explored, and are a family of their own, without
    the arms that are the baseline once more (twin); these have Welch's interval where they share no seed with it.
    """
    rows, twins = [], twins_of(runs, baseline)
    paired = speeds.to_dict("index")
    base, good = arms.to_dict("index")[baseline], usable(runs, metric.column)
    for arm, costs in arms.drop(index=baseline).to_dict("index").items():
        mine = pairs[pairs["arm"] == arm]
        reasons = [reason for reason in mine["refused"] if reason]
        values = np.array([]) if reasons else mine["difference"].to_numpy(float)
        (mean, low, high), n = t_interval(values), len(values)
        if arm in twins and not n:  # it has seeds of its own
            alone = [good.loc[good["arm"] == one, metric.column].to_numpy(float) for one in (baseline, arm)]
            (mean, low, high), n = welch_interval(*alone), min(map(len, alone))
        row: dict[str, Any] = {"arm": arm, "n": n, "difference": mean, "low": low, "high": high}
        row["low_bca"], row["high_bca"] = bca_interval(values)
        row |= {"sd": values.std(ddof=1) if len(values) > 1 else math.nan, "p": sign_flip_p(values)}
        row["correlation"] = _correlation(mine) if len(values) > 2 else math.nan
        row |= {
            "twin": arm in twins,
            "claimed": arm in set(claims["arm"]),
            "caution": "; ".join(dict.fromkeys(filter(None, mine["caution"]))),
        }
        row["refused"] = reasons[0] if reasons else ""
        row["reading"] = _reading(row)
        row["ahead"] = bool(base["causal"]) and not costs["causal"]
        row |= {f"{cost}_percent": 100 * (_ratio(costs[cost], base[cost]) - 1) for cost in MATCHED}
        row["peak_memory_bytes_ratio"] = _ratio(costs["peak_memory_bytes"], base["peak_memory_bytes"])
        row |= {name: paired[arm][name] for name in SPEED}
        rows.append(row)
    names = ["arm", "n", "difference", "low", "high", "low_bca", "high_bca", "sd", "p", "correlation", "refused", "reading"]
    names += ["ahead", "twin", "claimed", "caution", *(f"{cost}_percent" for cost in MATCHED)]
    names += ["peak_memory_bytes_ratio", *SPEED]
    table = pd.DataFrame(rows, columns=names)
    explored = table.assign(p=table["p"].mask(table["twin"].astype(bool) | table["claimed"].astype(bool)))
    decided = decide(explored, lower_is_better=metric.lower_is_better)
    table = table.join(decided[["p_holm", "verdict", "kind"]])
    table.loc[table["ahead"].astype(bool) | table["twin"].astype(bool), ["verdict", "kind"]] = [None, "open"]
    needed, by_arm = seeds_needed(int(explored["p"].notna().sum())), dict(iter(runs.groupby("arm", dropna=False)))
    for claim in claims.to_dict("records"):
        of_claim = table["arm"] == claim["arm"]
        table.loc[of_claim, ["p_holm", "verdict", "kind"]] = [claim["p"], claim["verdict"], _kind(claim, metric)]
    table["note"] = [_note(row, by_arm[row["arm"]], 0 if row["claimed"] else needed) for row in table.to_dict("records")]
    return table.sort_values("difference", ascending=metric.lower_is_better, kind="stable", ignore_index=True)


def _correlation(pairs: pd.DataFrame) -> float:
    """Of the arm with the baseline over seeds: what makes same-seed differences steadier than the runs."""
    values = pairs[["value", "baseline_value"]].to_numpy(float)
    return float(np.corrcoef(values.T)[0, 1]) if (np.ptp(values, axis=0) > 0).all() else math.nan


def _kind(claim: dict[Any, Any], metric: Metric) -> str:
    """good or bad where the arm's metric is better or worse by the verdict."""
    if claim["verdict"] not in ("supported", "refuted"):
        return "open"
    return "good" if (claim["measured"] < 0) == metric.lower_is_better else "bad"


def _reading(row: dict[str, Any]) -> str:
    if row["refused"]:
        return "refused"
    if row["high"] < 0:
        return "lower"
    return "higher" if row["low"] > 0 else "unclear"


def _note(row: dict[Any, Any], runs: pd.DataFrame, needed: int) -> str:
    """Caveats of the row, the most damaging first."""
    notes = [f"refused: {row['refused']}"] if row["refused"] else []
    if row["ahead"]:
        notes.append("sees later tokens: not comparable as a language model")
    for status in ("diverged", "failed", "unfinished"):
        count = int((runs["status"] == status).sum())
        if count:
            others = ": the numbers are those of the others only" if row["n"] else ""
            counts = ": the difference counts each as the worst result of the study"
            notes.append(f"{count} of {len(runs)} runs {status}{counts if status == 'diverged' else others}")
    if not row["refused"] and not row["n"] and not row["twin"]:
        notes.append("no seed that both this arm and the baseline finished")
    elif not row["refused"] and not row["twin"]:
        notes.append(too_few(row["n"], needed))
    if row["twin"]:
        notes.append("the baseline's own config once more: its interval is chance alone")
    return "; ".join(filter(None, notes))


def _ratio(value: float, base: float) -> float:
    if value == base:  # 0 state bytes against 0 state bytes is no mismatch
        return 1.0
    return float(value / base) if base else math.nan
