"""What the seeds allow to be said: how many are needed, p corrected for the number of claims, and the verdict on each."""

from __future__ import annotations

import numpy as np
import pandas as pd

ALPHA = 0.05  # the share of studies without any effect that may end with a verdict


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


def holm(p: pd.Series[float]) -> pd.Series[float]:
    """Holm's step-down correction for as many comparisons as have a p."""
    ordered = p.dropna().sort_values()
    steps = ordered * np.arange(len(ordered), 0, -1)
    return steps.cummax().clip(upper=1.0).reindex(p.index)


def decide(claims: pd.DataFrame, *, lower_is_better: bool) -> pd.DataFrame:
    """A table of claims (n, p, low, high) with p_holm, verdict and kind.

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
