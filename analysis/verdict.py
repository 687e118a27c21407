"""What the seeds allow to be said: p corrected for the number of claims, the verdict on each, and how many seeds are needed.

A registered claim predicts of an arm that a metric is lower, higher or equivalent, against the baseline, and names the margin,
the smallest difference that would matter. d_1 ... d_n are its same-seed differences and D is the mean that they estimate. Each
claim has two tests, each with its null:

    predicted lower or higher    D = 0            exact sign-flip p of d_i, two-sided
                                 |D| >= margin    TOST: P(T(n - 1) > (margin - |mean d|) sqrt(n) / sd)
    predicted equivalent         |D| >= margin    TOST
                                 |D| < margin     exact sign-flip p of d_i -+ margin, about the edge that the mean lies beyond

The verdict goes by corrected p < 0.05 and by nothing else, but that the 95 % t interval lies on the side that is claimed:

    equivalent      TOST: whatever was predicted, the difference is smaller than would matter (even one that is not zero)
    supported       a predicted side, and the difference is significant on it
    refuted         a predicted side, and the difference is significant on the other one;
                    equivalence predicted, and the difference is significantly larger than the margin
    inconclusive    none of these, or fewer seeds than so many claims need

A claim holds where it is supported, or where equivalence was predicted and found.

The family is all tests of all claims. The two nulls of a claim exclude each other, so of 2m tests at most m can go wrong, and
the factor of Holm's step-down is the number of claims that still have a null which is not rejected (Shaffer 1986, "Modified
Sequentially Rejective Multiple Test Procedures"). So at most 5 % of studies have any wrong verdict, whatever the mixture of
arms without effect, with an effect of just the margin, and with a large one. Without a margin it is plain Holm.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.sample import beyond_p, equivalence_p, sign_flip_p, t_interval

Verdict = Literal["supported", "refuted", "equivalent", "inconclusive"]

ALPHA = 0.05  # the share of studies without any effect that may end with a verdict
POWER = 0.8  # the chance of a verdict that a number of seeds is to give
MOST_SEEDS = 1000


@dataclass(frozen=True)
class Judgement:
    """One claim judged. p, p_equivalent, p_beyond: corrected, nan for the test that such a claim has not."""

    verdict: Verdict
    holds: bool | None
    n: int
    difference: float
    low: float
    high: float
    p: float
    p_equivalent: float
    p_beyond: float


def judge(predicted: Sequence[str], samples: Sequence[np.ndarray], margins: Sequence[float]) -> list[Judgement]:
    """The verdict on each of a study's claims. predicted: lower, higher or equivalent; samples: its same-seed differences, none
    where it could not be measured (it stays in the family, which was fixed beforehand); margins: the smallest difference that
    would matter, nan for none."""
    tests = [_tests(*claim) for claim in zip(predicted, samples, margins, strict=True)]
    raw = np.array(tests).reshape(len(tests), 3)
    corrected, needed = step_down(raw), seeds_needed(len(samples))
    return [
        _judgement(one, values, margin, p, needed)
        for one, values, margin, p in zip(predicted, samples, margins, corrected.tolist(), strict=True)
    ]


def _tests(predicted: str, values: np.ndarray, margin: float) -> tuple[float, float, float]:
    """p, p_equivalent, p_beyond as they are, nan for the one that such a claim has not."""
    if predicted == "equivalent":
        return math.nan, equivalence_p(values, margin), beyond_p(values, margin)
    return sign_flip_p(values) if len(values) else 1.0, equivalence_p(values, margin), math.nan


def _judgement(predicted: str, values: np.ndarray, margin: float, p: list[float], needed: int) -> Judgement:
    (mean, low, high), n = t_interval(values), len(values)
    different, equivalent, beyond = (one < ALPHA and n >= needed for one in p)
    verdict: Verdict = "inconclusive"
    if equivalent:
        verdict = "equivalent"
    elif predicted == "equivalent" and beyond and (low > margin or high < -margin):
        verdict = "refuted"
    elif predicted != "equivalent" and different and (low > 0 or high < 0):
        verdict = "supported" if predicted == ("lower" if mean < 0 else "higher") else "refuted"
    holds = None if verdict == "inconclusive" else verdict == ("equivalent" if predicted == "equivalent" else "supported")
    return Judgement(verdict, holds, n, mean, low, high, *p)


def seeds_wanted(predicted: str, values: np.ndarray, margin: float, claims: int) -> float:
    """How many seeds, in all, would give an inconclusive claim its verdict with 80 % chance, if its sd stays what it seems.

    For a side, a difference as large as observed, or as the margin if that is larger, is to be told from zero; for
    equivalence, the observed difference from the edge of the margin, where two edges may be missed. At least one seed more.
    """
    needed, alpha, mean = seeds_needed(claims), ALPHA / claims, float(np.mean(values)) if len(values) else math.nan
    sd = float(np.std(values, ddof=1)) if len(values) > 1 else math.nan
    if predicted == "equivalent":
        found: float = seeds_for(abs(margin - abs(mean)), sd, alpha, least=needed, sides=1, power=1 - (1 - POWER) / 2)
    else:
        found = seeds_for(float(np.fmax(abs(mean), margin)), sd, alpha, least=needed)
    return max(found, float(len(values) + 1))


def seeds_for(distance: float, sd: float, alpha: float, *, least: int, sides: int = 2, power: float = POWER) -> float:
    """The fewest seeds with which a paired t test at level alpha finds a difference this far off with the given power.

    At least ``least``, which is also the answer where the sd is not known yet; inf for more than 1,000.
    """
    if not sd > 0 or not distance > 0:
        return math.inf if sd > 0 else least
    n = np.arange(max(2, least), MOST_SEEDS + 1)
    critical = stats.t.isf(alpha / sides, n - 1)
    shift = np.minimum(distance / sd * np.sqrt(n), critical + 20)  # beyond that the power is 1, and the formula overflows
    enough = n[stats.nct.sf(critical, n - 1, shift) >= power]
    return int(enough[0]) if len(enough) else math.inf


def seeds_needed(claims: int) -> int:
    """The fewest seeds that can decide one of so many claims: the smallest n with 2 / 2^n < ALPHA / claims.

    The sign-flip p cannot fall below 2 / 2^n, and Holm's first step multiplies it by the number of claims.
    """
    n = 1
    while 2 * max(1, claims) / 2**n >= ALPHA:
        n += 1
    return n


def too_few(n: int, needed: int) -> str:
    """The warning for a small number of seeds; empty where there are enough."""
    what = "an interval, not a verdict" if n > 1 else "neither interval nor verdict"
    return "" if n >= needed else f"n = {n} seed{'s' * (n != 1)}: {what} ({needed} needed)"


def step_down(p: np.ndarray) -> np.ndarray:
    """Corrected p of all tests, a row per claim and a column per test; nan is no test.

    Smallest first, each times the number of claims that have a test left, and none below the one before it.
    """
    corrected, left, reached = np.full(p.shape, math.nan), np.isfinite(p).sum(axis=1), 0.0
    for place in np.argsort(p, axis=None, kind="stable")[: left.sum()]:
        claim, test = np.unravel_index(place, p.shape)
        reached = max(reached, min(1.0, float(p[claim, test]) * int(np.count_nonzero(left))))
        corrected[claim, test] = reached
        left[claim] -= 1
    return corrected


def holm(p: pd.Series[float]) -> pd.Series[float]:
    """Holm's step-down correction for as many comparisons as have a p."""
    return pd.Series(step_down(p.to_numpy(float)[:, None])[:, 0], index=p.index)


def decide(claims: pd.DataFrame, *, lower_is_better: bool) -> pd.DataFrame:
    """What was explored, without a prediction: a table (n, p, low, high) with p_holm, verdict and kind.

    verdict: lower or higher where the corrected p is below ALPHA and the interval lies on that side of zero, else inconclusive;
    None below the seeds that so many claims need. kind: good or bad as the verdict is, else open.
    """
    p = claims["p"].astype(float)
    p_holm, needed = holm(p), seeds_needed(int(p.notna().sum()))
    side = np.where(claims["high"] < 0, "lower", np.where(claims["low"] > 0, "higher", "inconclusive"))
    verdict = pd.Series(np.where(p_holm < ALPHA, side, "inconclusive"), index=claims.index, dtype=object)
    verdict[claims["n"] < needed] = None
    better, worse = ("lower", "higher") if lower_is_better else ("higher", "lower")
    kind = verdict.map({better: "good", worse: "bad"}).fillna("open")
    return claims.assign(p_holm=p_holm, verdict=verdict, kind=kind)
