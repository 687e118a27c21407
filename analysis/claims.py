"""The claims of a registered question, each with what was measured and the verdict on it."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pandas as pd

from analysis.fairness import same_seed_pairs, uneven
from analysis.metric import called, counted, usable
from analysis.sample import bca_interval
from analysis.speed import comparable_speeds, speed_conditions, timed_together
from analysis.verdict import MOST_SEEDS, judge, seeds_wanted
from runs.job.question import Prediction, Question
from runs.job.record import COSTS, SPEEDS, TIMED

SIDES = ("lower", "higher")
COLUMNS = [
    "arm",
    "against",
    "claim",
    "source",
    "predicted",
    "metric",
    "margin",
    "measured",
    "low",
    "high",
    "low_bca",
    "high_bca",
]
COLUMNS += ["n", "p", "p_equivalent", "p_beyond", "verdict", "holds", "more_seeds", "why", "caution"]


def judged(runs: pd.DataFrame, question: Question | None, baseline: str) -> pd.DataFrame:
    """One row per prediction: arm, against, claim, source, predicted, metric, margin, measured, low, high, n, verdict, why ...

    measured: the difference from the arm that it is held against; where a number was predicted, the metric itself. verdict: one
    of four words, None where the comparison is refused; why: what stands against or behind it, in words; more_seeds: how many
    more would do, where it is inconclusive for want of them (inf: more than 1,000).
    """
    if question is None:
        return pd.DataFrame(columns=COLUMNS)
    rows = [_row(runs, question, prediction, baseline) for prediction in question]
    for row in rows:
        if row["metric"] in COSTS and not row["why"]:
            row.update(_computed(runs, row))
    _measure(runs, [row for row in rows if row["metric"] not in COSTS])
    return pd.DataFrame(rows, columns=COLUMNS).astype({"verdict": object, "holds": object})


def _row(runs: pd.DataFrame, question: Question, asked: Prediction, baseline: str) -> dict[str, Any]:
    """A claim before it is measured; with a verdict, and why, where it cannot be."""
    beside = asked.against or baseline
    arms, others = called(runs, asked.arm), called(runs, beside)
    arm, other = (found[0] if found else name for found, name in ((arms, asked.arm), (others, beside)))
    row: dict[str, Any] = {"arm": arm, "against": other, "claim": question.claim, "source": question.source}
    row |= {"predicted": asked.outcome, "metric": asked.metric, "margin": asked.margin, "n": 0}
    row |= {"verdict": "inconclusive", "holds": None, "more_seeds": math.nan, "why": "", "caution": ""}
    absolute = not isinstance(asked.outcome, str)
    wanted = [(arms, asked.arm), *([] if absolute else [(others, beside)])]
    for same, name in wanted:
        if len(same) != 1:
            return row | {"why": f"{len(same)} arms are called {name}" if same else f"no arm called {name} has run"}
        if asked.metric not in runs or usable(counted(runs, asked.metric), asked.metric)["arm"].ne(same[0]).all():
            return row | {"why": f"no finished run of {name} has {asked.metric}"}
    if absolute:
        row["against"] = None
    elif arm == other:
        row["why"] = "it is held against itself"
    elif found := uneven(runs, question.equal, arm, other):
        row |= {"verdict": None, "why": f"refused: {found}"}
    elif _looks_ahead(runs, other) < _looks_ahead(runs, arm) and asked.metric.startswith("val_"):
        row |= {"verdict": None, "why": "refused: it sees later tokens, and what it is held against does not"}
    elif asked.metric in TIMED and not timed_together(speed_conditions(runs), arm, other):
        row["why"] = (
            "they were not timed in turns, and what else goes on decides a speed: study.timing=20, with the same command"
        )
    elif asked.metric in SPEEDS and not comparable_speeds(speed_conditions(runs), arm, other):
        row["why"] = "its runs and those it is held against had other devices or numbers of threads, which decide a speed"
    return row


def _looks_ahead(runs: pd.DataFrame, arm: str) -> bool:
    return bool((runs.loc[runs["arm"] == arm, "causal"] == False).any())  # noqa: E712 (None is neither)


def _computed(runs: pd.DataFrame, row: dict[str, Any]) -> dict[str, Any]:
    """A cost that is computed has no noise: the claim holds or does not, whatever the seeds."""
    values = []
    for arm in filter(None, (row["arm"], row["against"])):
        found = usable(runs[runs["arm"] == arm], row["metric"])[row["metric"]]
        if found.nunique() != 1:
            what = (
                f"the finished runs of {arm} do not agree in {row['metric']}" if len(found) else f"no run of {arm} has finished"
            )
            return {"why": what}
        values.append(float(found.iloc[0]))
    n, predicted = int((runs.loc[runs["arm"] == row["arm"], "status"] == "done").sum()), row["predicted"]
    difference = values[0] - (values[1] if isinstance(predicted, str) else predicted)
    side = "lower" if difference < 0 else "higher"
    differs = "supported" if side == predicted else "refuted"
    verdict = "equivalent" if abs(difference) < row["margin"] else differs
    holds = verdict == ("supported" if predicted in SIDES else "equivalent")
    shown = difference if isinstance(predicted, str) else values[0]
    exact = dict.fromkeys(("measured", "low", "high", "low_bca", "high_bca"), shown)
    return {**exact, "n": n, "verdict": verdict, "holds": holds, "why": "computed, so exact: no seeds are needed"}


def _measure(runs: pd.DataFrame, rows: list[dict[str, Any]]) -> None:
    """Judges the rows together: all that was predicted is the family that the correction is for, measured or not."""
    samples = [_sample(runs, row) for row in rows]
    sides = [row["predicted"] if row["predicted"] in SIDES else "equivalent" for row in rows]
    found = judge(sides, samples, [row["margin"] for row in rows])
    for row, side, values, one in zip(rows, sides, samples, found, strict=True):
        low_bca, high_bca = bca_interval(values)
        start = 0.0 if isinstance(row["predicted"], str) else row["predicted"]
        shown = {"measured": one.difference, "low": one.low, "high": one.high, "low_bca": low_bca, "high_bca": high_bca}
        row |= {name: start + value for name, value in shown.items()}
        row["n"] = one.n
        if row["why"]:
            continue
        row |= {"p": one.p, "p_equivalent": one.p_equivalent, "p_beyond": one.p_beyond}
        row |= {"verdict": one.verdict, "holds": one.holds}
        if math.isfinite(low_bca) and (low_bca > 0 or high_bca < 0) != (one.low > 0 or one.high < 0):
            doubt = "the bootstrap interval and the t interval do not agree about zero"
            row["caution"] = "; ".join(filter(None, (row["caution"], doubt)))
        if one.verdict == "inconclusive":
            wanted = seeds_wanted(side, values, row["margin"], len(rows))
            row |= {"more_seeds": wanted - one.n, "why": _wanted(wanted, one.n)}
        else:
            row["why"] = _because(one.verdict, row["predicted"], row["margin"])


def _sample(runs: pd.DataFrame, row: dict[str, Any]) -> np.ndarray:
    """One value per seed: the difference from the other arm, or from the number that was predicted. Notes what speaks against
    it in the row."""
    nothing, names = np.array([]), list(filter(None, (row["arm"], row["against"])))
    row["caution"] = "; ".join(note for arm in names for note in _ended(runs, arm))
    if row["why"]:
        return nothing
    mine = counted(runs, row["metric"])
    mine = mine[mine["arm"].isin(names)]
    if row["against"] is None:
        own = usable(mine, row["metric"]).drop_duplicates("seed", keep="last")
        if own["data_sha256"].nunique(dropna=False) > 1:
            row |= {"verdict": None, "why": "refused: different data among its runs"}
            return nothing
        return own[row["metric"]].to_numpy(float) - row["predicted"]
    pairs = same_seed_pairs(mine, row["metric"], row["against"])
    if refused := [reason for reason in pairs["refused"] if reason]:
        row |= {"verdict": None, "why": f"refused: {refused[0]}"}
        return nothing
    row["caution"] = "; ".join(filter(None, [row["caution"], *dict.fromkeys(pairs["caution"])]))
    return pairs["difference"].to_numpy(float)


def _ended(runs: pd.DataFrame, arm: str) -> list[str]:
    mine = runs.loc[runs["arm"] == arm, "status"]
    counts = [(status, int((mine == status).sum())) for status in ("diverged", "failed", "unfinished")]
    said = {"diverged": ", which counts as the worst result of the study"}
    return [f"{number} of {len(mine)} runs of {arm} {status}{said.get(status, '')}" for status, number in counts if number]


def _wanted(wanted: float, n: int) -> str:
    if math.isinf(wanted):
        return f"more than {MOST_SEEDS:,} seeds would be needed"
    return f"about {wanted - n:.0f} more seed{'s' * (wanted - n != 1)} would do ({wanted:.0f} in all, for 80 % power)"


def _because(verdict: str, predicted: str | float, margin: float) -> str:
    if verdict == "equivalent" and not isinstance(predicted, str):
        return f"within {margin:g} of the number that was predicted"
    if verdict == "equivalent":
        what = f"smaller than {margin:g}, which is the least that would matter"
        return what if predicted == "equivalent" else f"{what}, so it is not {predicted} by anything that counts"
    if verdict == "refuted":
        return "significant on the other side" if predicted in SIDES else f"off by more than {margin:g}"
    return "significant on the side that was predicted"
