"""Compute multipliers: how much more training compute a baseline needs to reach what an arm reaches."""

from __future__ import annotations

import math
from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd
from scipy import special

from analysis.digits import fixed, listed, si, times
from analysis.sample import CONFIDENCE, Interval

BUDGETS = 3  # that a curve needs, one for each number of its law
DRAWS = 1000
EXPONENTS = (1e-3, 3.0)  # of compute, between which the law's is looked for
NODES, ROUNDS = 24, 9  # of that search: each round looks at so many, and between the neighbours of the best from then on
ROUNDING = 1e-9  # what is less is the arithmetic's
UNKNOWN = (math.nan, math.nan, math.nan)


@dataclass(frozen=True)
class Multiplier:
    """What an arm is worth at each of its budgets C, as the compute of a baseline.

    multiplier = C_baseline(loss of the arm at C) / C

    budgets: a row per budget of the arm: flops, loss, multiplier with low and high, its 95 % interval, outside and bound. Where
    the answer lies beyond the budgets that the baseline was trained with, outside says on which side ("above": the baseline
    never got so low, "below": it was never so high), multiplier is nan, and bound is what it exceeds or stays under. An end of
    an interval that lies beyond is 0 or infinite. crossings: the compute at which the two curves cross, within the data.
    trend: the slope of log multiplier over log compute with its interval (below 0: the gain shrinks as compute grows), nan
    where fewer than 3 budgets have a multiplier. misfit: the largest relative distance of a mean loss from its curve.

    Paper: Davidson 2023, arXiv:2312.07413 (compute-equivalent gain).
    """

    arm: str
    baseline: str
    seeds: int
    budgets: pd.DataFrame
    crossings: tuple[float, ...]
    trend: Interval
    misfit: float

    def sentences(self) -> list[str]:
        """All that there is to say, in words."""
        told = [self._at(row) for row in self.budgets.to_dict("records")]
        if self.crossings:
            told.append(
                f"The curves cross at {listed([si(flops) for flops in self.crossings])} FLOPs: which is better depends on it."
            )
        slope, low, high = self.trend
        if math.isnan(slope):
            known = int(self.budgets["multiplier"].notna().sum())
            told.append(f"Whether the gain shrinks with compute needs {BUDGETS} budgets with a multiplier; there are {known}.")
        else:
            sure = "shrinks" if high < -ROUNDING else "grows" if low > ROUNDING else "is not known to change"
            ends = f" [{fixed(low)}, {fixed(high)}]" if math.isfinite(low) else ""
            told.append(f"The gain {sure} with compute: slope {fixed(slope)}{ends} of log multiplier over log FLOPs.")
        return told

    def _at(self, row: dict[Hashable, Any]) -> str:
        needs = f"At {si(row['flops'])} FLOPs {self.baseline} needs"
        if row["outside"]:
            side = "more" if row["outside"] == "above" else "less"
            return f"{needs} {side} than {times(row['bound'])} the compute of {self.arm}: beyond its budgets."
        ends = f" [{fixed(row['low'], 2)}, {fixed(row['high'], 2)}]" if math.isfinite(row["low"] + row["high"]) else ""
        return f"{needs} {times(row['multiplier'])}{ends} the compute of {self.arm}."


def compute_multiplier(
    frame: pd.DataFrame, arm: str, baseline: str, flops: str = "flops", loss: str = "loss", draws: int = DRAWS
) -> Multiplier:
    """The multiplier of an arm over a baseline, from a table with one run per row: arm, seed, flops, loss.

    The baseline's curve is a power law with a floor through its mean losses. It falls everywhere and so can be inverted, where
    a spline through noisy points bends back, and is off between two budgets where the floor bends the curve. The interval
    draws whole seeds, the same ones for both arms: log multiplier +- t(n - 1) sd sqrt(n / (n - 1)) with the sd of the draws,
    since the quantiles of draws from few seeds are too narrow. The law is used within the baseline's budgets alone; draws that
    lie beyond them are placed on its tangent there, and say how near to the edge an end may be, no more.

    Args:   arm, baseline: values of the column arm. flops, loss: the columns of training FLOPs and of the final loss.
    Raises: ValueError: a missing column or arm, numbers that are not above 0, fewer than 3 budgets, seeds that are not
            shared or have not been trained with every budget.
    """
    tables = {name: _by_seed(frame, name, flops, loss) for name in (arm, baseline)}
    mine, theirs = tables[arm], tables[baseline]
    if set(mine.index) != set(theirs.index):
        alone = sorted(set(mine.index) ^ set(theirs.index))
        raise ValueError(f"seed {alone[0]}: {arm} and {baseline} have not both been trained with it; leave it out")
    n = len(mine)
    drawn = np.random.default_rng(0).multinomial(n, np.full(n, 1 / n), size=draws if n > 1 else 0) / n
    weights = np.vstack([np.full((1, n), 1 / n), drawn])  # the first are the means themselves
    ours, base = weights @ mine.to_numpy(), weights @ theirs.to_numpy()
    x, edges = np.log(mine.columns.to_numpy(float)), np.log(theirs.columns.to_numpy(float))
    law = fit(edges, base)
    y = law.inverse(ours, edges[0], edges[-1]) - x  # log multipliers, a row per draw
    half = _half(y, n)
    known = (y[0] + x >= edges[0] - ROUNDING) & (y[0] + x <= edges[-1] + ROUNDING)
    own = fit(x, ours[:1])
    misfit = max(_misfit(law, edges, base[0]), _misfit(own, x, ours[0]))
    return Multiplier(
        arm,
        baseline,
        n,
        _budgets(mine, ours[0], y[0], half, edges),
        _crossings(own, law, max(x[0], edges[0]), min(x[-1], edges[-1])),
        _trend(x[known], y[:, known], n),
        misfit,
    )


@dataclass(frozen=True)
class Laws:
    """loss = floor + height x exp(-exponent (x - middle)), x = log compute: one law per row of what it was fitted to."""

    floor: np.ndarray
    height: np.ndarray
    exponent: np.ndarray
    middle: float

    def at(self, x: np.ndarray | float) -> np.ndarray:
        """(laws, places): the losses."""
        falling = np.exp(-self.exponent[:, None] * (np.atleast_1d(x) - self.middle))
        return self.floor[:, None] + self.height[:, None] * falling

    def inverse(self, loss: np.ndarray, low: float, high: float) -> np.ndarray:
        """The log compute of each loss; below the one at high and above that at low, on the law's tangent there."""
        places = []
        for edge in (low, high):
            at = self.at(edge)
            slope = self.exponent[:, None] * (at - self.floor[:, None])
            places.append(edge + (at - loss) / np.maximum(slope, 1e-12))
        with np.errstate(divide="ignore", invalid="ignore"):
            inside = self.middle - np.log((loss - self.floor[:, None]) / self.height[:, None]) / self.exponent[:, None]
        above, below = loss < self.at(high), loss > self.at(low)
        return np.where(above, places[1], np.where(below, places[0], inside))


def fit(x: np.ndarray, losses: np.ndarray) -> Laws:
    """The laws of least squares of the relative distance, over log compute x; losses: (laws, places).

    Given its exponent a law is linear, so that the search is along one line; floor and height are at least 0.
    """
    middle = float(x.mean())
    low, high = (np.full(len(losses), math.log(edge)) for edge in EXPONENTS)
    for _ in range(ROUNDS):
        nodes = np.linspace(low, high, NODES, axis=1)
        falling = np.exp(-np.exp(nodes)[..., None] * (x - middle))  # (laws, nodes, places)
        floor, height = _linear(falling, losses[:, None, :])
        best = (((floor[..., None] + height[..., None] * falling) / losses[:, None, :] - 1) ** 2).sum(-1).argmin(1)
        rows = np.arange(len(losses))
        low, high = nodes[rows, np.maximum(best - 1, 0)], nodes[rows, np.minimum(best + 1, NODES - 1)]
    return Laws(floor[rows, best], height[rows, best], np.exp(nodes[rows, best]), middle)


def _linear(falling: np.ndarray, losses: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Floor and height at least 0 with loss = floor + height x falling, weighted by 1 / loss^2."""
    weight = 1 / losses**2
    total = weight.sum(-1)
    x, y = (weight * falling).sum(-1) / total, (weight * losses).sum(-1) / total
    apart = falling - x[..., None]
    height = np.maximum((weight * apart * losses).sum(-1) / (weight * apart**2).sum(-1), 0.0)
    floor = y - height * x
    alone = (weight * falling * losses).sum(-1) / (weight * falling**2).sum(-1)  # the height without a floor
    return np.maximum(floor, 0.0), np.where(floor < 0, alone, height)


def _by_seed(frame: pd.DataFrame, arm: str, flops: str, loss: str) -> pd.DataFrame:
    """Mean losses, a row per seed and a column per budget. Raises ValueError."""
    if missing := [name for name in ("arm", "seed", flops, loss) if name not in frame]:
        raise ValueError(f"the table has no column {', '.join(missing)}; it has {', '.join(map(str, frame.columns))}")
    rows = frame[frame["arm"] == arm]
    if rows.empty:
        raise ValueError(f"no run of {arm!r}; the arms are: {', '.join(sorted(map(str, frame['arm'].unique())))}")
    for name in (flops, loss):
        values = pd.to_numeric(rows[name], errors="coerce")
        if not (np.isfinite(values) & (values > 0)).all():
            raise ValueError(
                f"{name} of {arm}: numbers above 0 are expected in every row; leave out the seeds that diverged and say so"
            )
    table = rows.astype({flops: float, loss: float}).pivot_table(index="seed", columns=flops, values=loss, aggfunc="mean")
    if len(table.columns) < BUDGETS:
        raise ValueError(f"{arm} has {len(table.columns)} budgets in {flops}; a curve needs at least {BUDGETS}")
    if table.isna().any(axis=None):
        seed, budget = next(
            (seed, budget) for seed, row in table.iterrows() for budget in table.columns if np.isnan(row[budget])
        )
        raise ValueError(f"seed {seed} of {arm} has no run of {budget:g} {flops}; every seed is needed at every budget")
    return table.sort_index()


def _half(values: np.ndarray, n: int) -> np.ndarray:
    """Half of the 95 % interval of each column, whose first row is the estimate and the others are draws."""
    if n < 2:
        return np.full(values.shape[1:], math.nan)
    half: np.ndarray = special.stdtrit(n - 1, (1 + CONFIDENCE) / 2) * values[1:].std(0) * math.sqrt(n / (n - 1))
    return half


def _budgets(table: pd.DataFrame, loss: np.ndarray, y: np.ndarray, half: np.ndarray, edges: np.ndarray) -> pd.DataFrame:
    x = np.log(table.columns.to_numpy(float))
    least, most = edges[0] - x, edges[-1] - x  # log multipliers that the baseline's budgets can tell
    outside = np.where(y > most + ROUNDING, "above", np.where(y < least - ROUNDING, "below", ""))
    bound = np.exp(np.where(outside == "above", most, np.where(outside == "below", least, math.nan)))
    low, high = y - half, y + half
    return pd.DataFrame(
        {
            "flops": table.columns.to_numpy(float),
            "loss": loss,
            "multiplier": np.where(outside == "", np.exp(y), math.nan),
            "low": np.where(low < least, 0.0, np.exp(np.minimum(low, most))),
            "high": np.where(high > most, math.inf, np.exp(np.maximum(high, least))),
            "outside": outside,
            "bound": bound,
        }
    )


def _trend(x: np.ndarray, y: np.ndarray, n: int) -> Interval:
    if len(x) < BUDGETS:
        return UNKNOWN
    apart = x - x.mean()
    slopes = y @ apart / (apart @ apart)
    half = float(_half(slopes[:, None], n)[0])
    return float(slopes[0]), float(slopes[0]) - half, float(slopes[0]) + half


def _crossings(one: Laws, other: Laws, low: float, high: float) -> tuple[float, ...]:
    """Where the first laws of both meet, between these places: two at most."""
    x = np.linspace(low, high, 2001)
    gap = one.at(x)[0] / other.at(x)[0] - 1
    x, gap = x[np.abs(gap) > ROUNDING], gap[np.abs(gap) > ROUNDING]
    steps = np.flatnonzero(gap[:-1] * gap[1:] < 0)
    return tuple(float(np.exp(x[i] + (x[i + 1] - x[i]) * gap[i] / (gap[i] - gap[i + 1]))) for i in steps)


def _misfit(law: Laws, x: np.ndarray, losses: np.ndarray) -> float:
    return float(np.abs(law.at(x)[0] / losses - 1).max())
