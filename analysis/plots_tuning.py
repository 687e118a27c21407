"""The figure of tuning: the loss of each arm over its learning rates, and the rate that it was given."""

from __future__ import annotations

import math

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.comparison import Comparison, short_names
from analysis.digits import TIMES
from analysis.labels import label_ends
from analysis.style import GREY, WIDTH, Drawing, Mark, fence, marks, styled

MOST_TICKS = 12


@styled
def rates(study: Comparison) -> Drawing | None:
    """Loss against learning rate, an arm a line."""
    if study.tuning is None or not np.isfinite(study.tuning.grid["loss"]).any():
        return None
    grid, chosen = study.tuning.grid, study.tuning.arms.set_index("arm")["chosen"].to_dict()
    arms = [str(arm) for arm in grid["arm"].unique()]
    found = {arm: Mark(GREY, "o", "-", True) for arm in arms} | marks(study)  # one that nothing trained is no arm
    names = {arm: arm for arm in arms} | short_names(study)
    figure = Figure(figsize=(WIDTH, 4.0))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.075, right=0.82, bottom=0.14, top=0.97)
    ax.set_xscale("log", base=2)
    ticks = sorted(grid["rate"].unique())
    ax.xaxis.set_major_locator(FixedLocator(ticks[:: -(-len(ticks) // MOST_TICKS)]))
    ax.xaxis.set_major_formatter(FuncFormatter(lambda rate, _: f"{rate:g}"))
    ax.xaxis.set_minor_locator(NullLocator())
    low, high = fence(grid.loc[np.isfinite(grid["loss"]), "loss"])
    room = 0.06 * (high - low) or 0.1
    lost = grid[np.isinf(grid["loss"])]
    stacked = lost.groupby("rate").cumcount()  # the crosses of one rate stand above each other
    ax.set_ylim(low - room, high + room * (1 + (stacked.max() if len(lost) else 0)))
    ax.set_xlim(ticks[0] / 2**0.25, ticks[-1] * 2**0.25)
    ax.set(xlabel="learning rate (optim.lr)", ylabel="validation loss of the trials, nats per token")
    parts, ends = [], {}
    for arm in sorted(arms, key=lambda arm: (found[arm].named, arm == study.baseline)):
        line = grid[grid["arm"] == arm].sort_values("rate")
        trained = line[np.isfinite(line["loss"])]
        at_chosen = _between(trained, chosen.get(arm, math.nan))
        _draw(ax, trained, chosen.get(arm, math.nan), at_chosen, found[arm])
        parts.append(line.assign(chosen=chosen.get(arm, math.nan)))
        if len(trained):
            ends[arm] = float(trained["loss"].iloc[-1])
    for arm, rate, place in zip(lost["arm"], lost["rate"], stacked, strict=True):
        ax.plot([rate], [high + room * (1 + place)], "x", color=found[arm].colour, ms=7, mew=1.8, clip_on=False, zorder=5)
    label_ends(ax, ends, found, names)
    data = pd.concat(parts)
    caption = (
        "Means over the trials' seeds, which no comparison uses. Rings: the rate that each arm was given, on the straight line "
        "between its neighbours. The flatter a valley, the less a wrong rate costs."
    )
    if len(lost):
        caption += f" {TIMES} at the upper edge: a trial of the arm diverged at this rate."
    told = "; ".join(f"{arm} {chosen[arm]:g}" for arm in arms[:12] if math.isfinite(chosen.get(arm, math.nan)))
    alt = f"Validation loss against learning rate for {len(arms)} arms. Rates chosen: {told or 'none'}."
    return Drawing("rates", "Loss against learning rate", caption, alt, data, figure)


def _between(trained: pd.DataFrame, rate: float) -> float:
    """The height of the line at this rate; nan beyond its ends."""
    if not rate > 0 or trained.empty:
        return math.nan
    height = np.interp(math.log(rate), np.log(trained["rate"]), trained["loss"], left=math.nan, right=math.nan)
    return float(height)


def _draw(ax: Axes, trained: pd.DataFrame, chosen: float, at_chosen: float, mark: Mark) -> None:
    front, width = (3, 1.6) if mark.named else (1, 0.8)
    ax.plot(
        trained["rate"], trained["loss"], color=mark.colour, ls=mark.line, marker=mark.marker, ms=4.5, lw=width, zorder=front
    )
    if math.isfinite(at_chosen) and mark.named:
        ax.plot([chosen], [at_chosen], "o", mfc="none", mec=mark.colour, ms=12, mew=1.6, zorder=4)
