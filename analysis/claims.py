"""The claims of a registered question, each with what was measured and the verdict on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.fairness import comparable_speeds, same_seed_pairs, speed_conditions, uneven
from analysis.metric import called, usable
from analysis.question import Question
from analysis.sample import bca_interval
from analysis.verdict import MOST_SEEDS, judge, seeds_wanted
from runs.job.record import COSTS, SPEEDS

COLUMNS = ["arm", "claim", "source", "predicted", "metric", "margin", "measured", "low", "high", "low_bca", "high_bca", "n"]
COLUMNS += ["p", "p_equivalent", "p_beyond", "verdict", "holds", "more_seeds", "why", "caution"]


def judged(runs: pd.DataFrame, question: Question | None, baseline: str) -> pd.DataFrame:
    """One row per predicted arm: arm, claim, source, predicted, metric, margin, measured, low, high, n, verdict, why ...

    verdict: one of four words, None where the comparison is refused; why: what stands against or behind it, in words;
    more_seeds: how many more would do, where it is inconclusive for want of them (inf: more than 1,000).
    """
    if question is None:
        return pd.DataFrame(columns=COLUMNS)
    rows = [_row(runs, question, name, baseline) for name in question.predicted]
    if question.metric in COSTS:
        rows = [row if row["why"] else row | _computed(runs, row, question, baseline) for row in rows]
    elif question.metric in runs:
        _measure(runs, rows, question, baseline)
    return pd.DataFrame(rows, columns=COLUMNS).astype({"verdict": object, "holds": object})


def _row(runs: pd.DataFrame, question: Question, name: str, baseline: str) -> dict[str, Any]:
    """A claim before it is measured; with a verdict, and why, where it cannot be."""
    arms = called(runs, name)
    row: dict[str, Any] = {"arm": arms[0] if arms else name, "claim": question.claim, "source": question.source}
    row |= {"predicted": question.predicted[name], "metric": question.metric, "margin": question.margin, "n": 0}
    row |= {"verdict": "inconclusive", "holds": None, "more_seeds": math.nan, "why": "", "caution": ""}
    if len(arms) != 1:
        row["why"] = f"{len(arms)} arms are called {name}" if arms else f"no arm called {name} has run"
    elif arms[0] == baseline:
        row["why"] = "it is the baseline itself"
    elif question.metric not in runs or usable(runs, question.metric).empty:
        row["why"] = f"no finished run has {question.metric}"
    elif found := uneven(runs, question.equal, arms[0], baseline):
        row |= {"verdict": None, "why": f"refused: {found}"}
    elif _looks_ahead(runs, baseline) < _looks_ahead(runs, arms[0]) and question.metric.startswith("val_"):
        row |= {"verdict": None, "why": "refused: it sees later tokens, and the baseline does not"}
    elif question.metric in SPEEDS and not comparable_speeds(speed_conditions(runs), arms[0], baseline):
        row["why"] = "its runs and the baseline's had other devices or numbers of threads, which decide a speed"
    return row


def _looks_ahead(runs: pd.DataFrame, arm: str) -> bool:
    return bool((runs.loc[runs["arm"] == arm, "causal"] == False).any())  # noqa: E712 (None is neither)


def _computed(runs: pd.DataFrame, row: dict[str, Any], question: Question, baseline: str) -> dict[str, Any]:
    """A cost that is computed has no noise: the claim holds or does not, whatever the seeds."""
    mine, theirs = (usable(runs[runs["arm"] == arm], question.metric)[question.metric] for arm in (row["arm"], baseline))
    if not (mine.nunique() == 1 and theirs.nunique() == 1):
        return {
            "why": f"the finished runs of one arm do not agree in {question.metric}" if len(mine) else "no run has finished"
        }
    difference = float(mine.iloc[0] - theirs.iloc[0])
    side = "lower" if difference < 0 else "higher"
    if abs(difference) < question.margin or not difference:
        verdict = "equivalent"
    else:
        verdict = "supported" if side == row["predicted"] else "refuted"
    holds = verdict == ("equivalent" if row["predicted"] == "equivalent" else "supported")
    exact = {"measured": difference, "low": difference, "high": difference, "low_bca": difference, "high_bca": difference}
    return {**exact, "n": len(mine), "verdict": verdict, "holds": holds, "why": "computed, so exact: no seeds are needed"}


def _measure(runs: pd.DataFrame, rows: list[dict[str, Any]], question: Question, baseline: str) -> None:
    """Judges the rows together: all that was predicted is the family that the correction is for, measured or not."""
    pairs = same_seed_pairs(runs, question.metric, baseline)
    samples = []
    for row in rows:
        mine = pairs[pairs["arm"] == row["arm"]]
        refused = [reason for reason in mine["refused"] if reason]
        if refused and not row["why"]:
            row |= {"verdict": None, "why": f"refused: {refused[0]}"}
        samples.append(np.array([]) if row["why"] else mine["difference"].to_numpy(float))
        row["caution"] = "; ".join([*_ended(runs, row["arm"]), *dict.fromkeys(filter(None, mine["caution"]))])
    found = judge([row["predicted"] for row in rows], samples, question.margin)
    for row, values, one in zip(rows, samples, found, strict=True):
        low_bca, high_bca = bca_interval(values)
        row |= {"measured": one.difference, "low": one.low, "high": one.high, "low_bca": low_bca, "high_bca": high_bca}
        row["n"] = one.n
        if row["why"]:
            continue
        row |= {"p": one.p, "p_equivalent": one.p_equivalent, "p_beyond": one.p_beyond}
        row |= {"verdict": one.verdict, "holds": one.holds}
        if math.isfinite(low_bca) and (low_bca > 0 or high_bca < 0) != (one.low > 0 or one.high < 0):
            doubt = "the bootstrap interval and the t interval do not agree about zero"
            row["caution"] = "; ".join(filter(None, (row["caution"], doubt)))
        if one.verdict == "inconclusive":
            wanted = seeds_wanted(row["predicted"], values, question.margin, len(rows))
            row |= {"more_seeds": wanted - one.n, "why": _wanted(wanted, one.n)}
        else:
            row["why"] = _because(one.verdict, row["predicted"], question.margin)


def _ended(runs: pd.DataFrame, arm: str) -> list[str]:
    mine = runs.loc[runs["arm"] == arm, "status"]
    counts = [(status, int((mine == status).sum())) for status in ("diverged", "failed", "unfinished")]
    return [f"{number} of {len(mine)} runs {status}" for status, number in counts if number]


def _wanted(wanted: float, n: int) -> str:
    if math.isinf(wanted):
        return f"more than {MOST_SEEDS:,} seeds would be needed"
    return f"about {wanted - n:.0f} more seed{'s' * (wanted - n != 1)} would do ({wanted:.0f} in all, for 80 % power)"


def _because(verdict: str, predicted: str, margin: float) -> str:
    if verdict == "equivalent":
        what = f"smaller than {margin:g}, which is the least that would matter"
        return what if predicted == "equivalent" else f"{what}, so it is not {predicted} by anything that counts"
    if verdict == "refuted":
        return f"larger than {margin:g}" if predicted == "equivalent" else "significant on the other side"
    return "significant on the side that was predicted"
