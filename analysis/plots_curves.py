"""The figures of training: the result against tokens, FLOPs and seconds, and the difference from the baseline as it grows."""

from __future__ import annotations

import math

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.comparison import Comparison, short_names
from analysis.curves import mean_curves, mean_gaps
from analysis.digits import TIMES, fixed
from analysis.labels import label_ends
from analysis.style import BLACK, VERMILLION, WIDTH, Drawing, Mark, fence, marks, quantity_axis, styled

QUANTITIES = {"tokens": "training tokens", "flops": "training FLOPs", "seconds": "training seconds"}


@styled
def curves(study: Comparison, rows: pd.DataFrame) -> Drawing | None:
    """Held-out result against tokens, FLOPs and seconds: three answers to "for the same what?"."""
    data = mean_curves(study, rows)
    drawn, diverged = data[data["status"] == "done"], data[data["status"] == "diverged"]
    if drawn.empty:
        return None
    found = marks(study)
    figure = Figure(figsize=(WIDTH, 4.3))
    panels = figure.subplots(1, 3, sharey=True)
    figure.subplots_adjust(left=0.065, right=0.82, bottom=0.13, top=0.97, wspace=0.08)
    arms = sorted(drawn["arm"].unique(), key=lambda arm: (found[arm].named, arm == study.baseline))
    for ax, (quantity, label) in zip(panels, QUANTITIES.items(), strict=True):
        for arm in arms:
            _line(ax, drawn[drawn["arm"] == arm], quantity, found[arm])
        quantity_axis(ax, label, drawn[quantity])
    _focus(panels[0], drawn)
    if math.isfinite(study.chance):
        for ax in panels:
            ax.axhline(study.chance, color=BLACK, lw=1, ls=(0, (1, 3)))
        low, high = panels[0].get_ylim()
        panels[0].set_ylim(min(low, study.chance - 0.04 * (high - study.chance)), high)
    top = panels[0].get_ylim()[1]  # what ends above the picture is marked at its upper edge
    for _, run in diverged.groupby("run"):
        for ax, quantity in zip(panels, QUANTITIES, strict=True):
            ax.plot(run[quantity], run["mean"], color=found[run["arm"].iloc[0]].colour, lw=0.8, ls=":")
            end = (run[quantity].iloc[-1:], run["mean"].iloc[-1:].clip(upper=top))
            ax.plot(*end, "x", color=VERMILLION, ms=8, mew=2, clip_on=False, zorder=5)
    panels[0].set_ylabel(study.metric.name)
    ends = {str(arm): float(mean) for arm, mean in drawn.groupby("arm")["mean"].last().items()}
    label_ends(panels[2], ends, found, short_names(study))
    caption = (
        "The same runs three times: at equal tokens the data is equal, at equal FLOPs the arithmetic, at equal seconds the "
        "wall clock (evaluation excluded). Lines are means over seeds, bands their range."
    )
    if math.isfinite(study.chance):
        caption += f" Dotted: chance, {fixed(study.chance, study.decimals)}."
    if len(diverged):
        caption += f" {TIMES} marks where a run diverged."
    if not all(found[arm].named for arm in arms):
        caption += " Grey: the arms that are neither the baseline nor among the best."
    summary = "; ".join(f"{arm} ends at {fixed(ends[arm], study.decimals)}" for arm in arms[::-1][:12])
    alt = f"{study.metric.name} against training tokens, FLOPs and seconds: {summary}."
    return Drawing("curves", "Learning curves", caption, alt, data, figure)


@styled
def gaps(study: Comparison, rows: pd.DataFrame) -> Drawing | None:
    """How the same-seed difference from the baseline grows or fades during training."""
    data = mean_gaps(study, rows)
    if data["step"].nunique() < 3:
        return None
    found = marks(study)
    figure = Figure(figsize=(WIDTH, 3.7))
    ax = figure.subplots()
    figure.subplots_adjust(left=0.075, right=0.82, bottom=0.14, top=0.97)
    for arm in sorted(data["arm"].unique(), key=lambda arm: found[arm].named):
        _line(ax, data[data["arm"] == arm], "step", found[arm])
    ax.axhline(0, color=BLACK, lw=1.2)
    if study.noise["band"]:
        ax.axhspan(*study.noise["band"], color="#eef1f4", zorder=0, lw=0)
    low, high = fence(data.loc[data["step"] >= 0.2 * data["step"].max(), "mean"])
    low, high = min(0.0, low), max(0.0, high)
    room = 0.6 * (high - low) or 1.0  # for the bands, which may be cut; the means must stay apart
    ax.set_ylim(max(low - room, data["min"].min()) - 0.1 * room, min(high + room, data["max"].max()) + 0.1 * room)
    ax.xaxis.set_major_locator(MaxNLocator(8, integer=True))
    ax.set(xlabel="training step", ylabel=f"difference in {study.metric.unit}")
    ends = {str(arm): float(mean) for arm, mean in data.groupby("arm")["mean"].last().items()}
    label_ends(ax, {study.baseline: 0.0} | ends, found, short_names(study))
    caption = (
        "Mean same-seed difference from the baseline at each evaluation, with the range over seeds; where lines cross, the "
        "ranking depends on the budget."
    )
    if study.noise["band"]:
        caption += " Grey band: the baseline against its own config once more, at the end: chance alone."
    alt = f"Difference in {study.metric.name} from {study.baseline} over training, for {data['arm'].nunique()} arms."
    return Drawing("gaps", "The difference over training", caption, alt, data, figure)


def _line(ax: Axes, line: pd.DataFrame, quantity: str, mark: Mark) -> None:
    width, front, marker = (1.8, 3, mark.marker if len(line) <= 12 else "") if mark.named else (0.8, 1, "")
    ax.plot(line[quantity], line["mean"], color=mark.colour, ls=mark.line, lw=width, marker=marker, ms=4, zorder=front)
    if mark.named:
        ax.fill_between(line[quantity], line["min"], line["max"], color=mark.colour, alpha=0.13, lw=0, zorder=front - 1)


def _focus(ax: Axes, drawn: pd.DataFrame) -> None:
    """Leaves out the steep beginning, where all arms look alike, and arms that end far from all others."""
    last = drawn.groupby("arm")["mean"].last()
    near = last.index[last.between(*fence(last))]
    late = drawn[(drawn["step"] >= drawn["step"].max() * 0.25) & drawn["arm"].isin(near)]
    low, high = late["min"].min(), late["max"].max()
    pad = 0.04 * (high - low) or 0.1
    ax.set_ylim(low - pad, high + pad)
