"""The figures of cost: result against speed and size with the Pareto front, and the costs themselves as bars."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from analysis.comparison import Comparison, pareto_front, short_names
from analysis.digits import si
from analysis.labels import label_points, label_room
from analysis.speed import RATE, SPEED, UNFIT
from analysis.style import (
    BLUE,
    GREY,
    INK,
    MOST_ROWS,
    WIDTH,
    Drawing,
    Mark,
    Prefixed,
    fence,
    marks,
    quantity_axis,
    short,
    styled,
)

BARS = {  # column: (title, unit)
    "tokens_per_s": ("throughput, tokens/s", ""),
    "peak_memory_bytes": ("peak memory", "B"),
    "total_params": ("parameters: total, active", ""),
}
COSTS = {  # column: (label, lower is better)
    "speed": ("speed, times the baseline's (right is better)", False),
    "active_params": ("active parameters (left is better)", True),
    "flops_per_token": ("forward FLOPs per token (left is better)", True),
}


@styled
def cost_bars(study: Comparison) -> Drawing | None:
    """Throughput, peak memory and parameters per arm, as bars from zero."""
    shown = [column for column in BARS if study.arms[column].notna().any()]
    if not shown:
        return None
    arms, names = [str(arm) for arm in study.arms.index[:MOST_ROWS]], short_names(study)
    labels = [short(names[arm]) for arm in arms]
    height = max(1.6, (0.27 if len(arms) <= 24 else 0.19) * len(arms) + 0.8)
    figure = Figure(figsize=(WIDTH, height))
    panels = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    figure.subplots_adjust(left=label_room(labels), right=0.97, bottom=0.5 / height, top=1 - 0.3 / height, wspace=0.12)
    done, parts = study.runs[study.runs["status"] == "done"].groupby("arm"), []
    for ax, column in zip(panels, shown, strict=True):
        bars = _rates(study) if column == "tokens_per_s" else done[column].agg(["mean", "min", "max"])
        bars = bars.set_axis(["mean", "low", "high"], axis=1).reindex(arms)
        parts.append(bars.assign(quantity=column))
        colours = [("#9aa1ab", INK) if arm == study.baseline else ("#8fbcdb", BLUE) for arm in arms]
        ax.barh(range(len(arms)), bars["mean"], color=[pale for pale, _ in colours], height=0.68)
        if column == "total_params":
            active = done["active_params"].agg(["mean", "min", "max"]).set_axis(bars.columns, axis=1).reindex(arms)
            parts.append(active.assign(quantity="active_params"))
            ax.barh(range(len(arms)), active["mean"], color=[full for _, full in colours], height=0.34)
        else:
            ax.hlines(range(len(arms)), bars["low"], bars["high"], color=INK, lw=1.1)
        title, unit = BARS[column]
        _bar_labels(ax, bars, f"{title}, {UNFIT}" if column == "tokens_per_s" and not study.in_turns else title, unit)
    panels[0].set_yticks(range(len(arms)), labels)
    panels[0].set_ylim(len(arms) - 0.4, -0.6)
    data = pd.concat(parts).rename_axis("arm").reset_index()[["quantity", "arm", "mean", "low", "high"]]
    caption = (
        "Means over seeds, best result first, the baseline in grey. Whiskers of memory: from the smallest to the largest run. "
        "Thin bars: the parameters that one token uses."
    )
    if study.in_turns:
        caption += " Whiskers of throughput: the 95 % interval of an arm's speed over the baseline's, timed in turns."
    else:
        caption += f" Throughput is that of training, {UNFIT}, and not to be compared; its whiskers are one standard deviation."
    if len(study.arms) > MOST_ROWS:
        caption += f" The first {MOST_ROWS} of {len(study.arms)} arms."
    rates = parts[0]["mean"].to_dict()
    alt = "Bars per arm: " + "; ".join(f"{arm} {si(rates[arm])} {shown[0]}" for arm in arms[:12]) + "."
    return Drawing("costs", "Speed, memory, size", caption, alt, data, figure)


@styled
def pareto(study: Comparison) -> Drawing | None:
    """Result against speed and against size; the front joins the arms that nothing beats on both."""
    arms = study.arms[study.arms["mean"].notna()]
    ahead = ~arms["causal"] & bool(study.arms["causal"].to_dict()[study.baseline])
    arms = arms[~ahead].join(study.speeds[list(SPEED)])
    shown = [column for column in COSTS if arms[column].nunique() > 1]
    if not shown:
        return None
    low, high = _room_for(arms)
    figure = Figure(figsize=(WIDTH, 4.4))
    panels = np.atleast_1d(figure.subplots(1, len(shown), sharey=True))
    figure.subplots_adjust(left=0.065, right=0.985, bottom=0.12, top=0.97, wspace=0.07)
    panels[0].set_ylabel(study.metric.name)
    panels[0].set_ylim(low - 0.12 * (high - low), high + 0.12 * (high - low))
    parts = []
    for ax, column in zip(panels, shown, strict=True):
        label, lower = COSTS[column]
        front = pareto_front(arms[column], arms["mean"], lower_cost=lower, lower_result=study.metric.lower_is_better)
        ends = {name: arms[f"{column}_{name}"] if column == "speed" else arms[column] for name in ("low", "high")}
        part = pd.DataFrame({"cost": column, "x": arms[column], **ends, "mean": arms["mean"], "sd": arms["sd"], "front": front})
        quantity_axis(ax, label, arms[column], margin=0.12)
        _points(ax, part.assign(y=part["mean"].clip(low, high)), study, step="steps-post" if lower else "steps-pre")
        parts.append(part)
    data = pd.concat(parts).rename_axis("arm").reset_index()
    caption = (
        "Means over seeds with their standard deviation, speeds with their 95 % interval. On the dashed front are the "
        "arms that no other beats on both axes at once; ringed marks lie on it."
    )
    if not arms["mean"].between(low, high).all():
        caption += " What lies far outside is drawn at the edge; its number is in the CSV."
    if not study.in_turns:
        caption += f" Speeds are left out: they were {UNFIT}."
    elif arms["speed"].isna().any():
        caption += f" Arms that were {UNFIT} with the baseline have no speed."
    if ahead.any():
        caption += " Arms that see later tokens (†) are left out."
    best = [f"against {column}: {', '.join(part.index[part['front']])}" for column, part in zip(shown, parts, strict=True)]
    alt = f"{study.metric.name} against cost. On the Pareto front {'; '.join(best)}."
    return Drawing("pareto", "Result against cost", caption, alt, data, figure)


def _bar_labels(ax: Axes, bars: pd.DataFrame, title: str, unit: str) -> None:
    edge = float(np.nanmax(bars.to_numpy(float)))
    for y, (mean, end) in enumerate(zip(bars["mean"], bars["high"].fillna(bars["mean"]), strict=True)):
        if math.isfinite(end):
            ax.text(end + 0.02 * edge, y, si(mean, unit), va="center", fontsize=8)
    ax.set_title(title)
    ax.set_xlim(0, edge * 1.22 or 1)
    ax.xaxis.set_major_formatter(Prefixed(unit))
    ax.xaxis.set_major_locator(MaxNLocator(4))
    ax.grid(axis="y", visible=False)
    ax.tick_params(axis="y", length=0)


def _points(ax: Axes, part: pd.DataFrame, study: Comparison, step: str) -> None:
    """One mark per arm, the front, and names: all of up to 14, of more only the ones picked out and those on the front."""
    found, part = marks(study), part[part["x"].notna()]
    edge = part[part["front"]].sort_values("x")
    ax.plot(edge["x"], edge["y"], color=GREY, lw=1.2, ls="--", drawstyle=step, zorder=1)
    rows = {str(arm): row for arm, row in part.to_dict("index").items()}
    for arm, row in rows.items():
        _point(ax, row, found[arm])
    named = [arm for arm, row in rows.items() if len(rows) <= 14 or found[arm].named or row["front"]]
    named = sorted(named, key=lambda arm: (not rows[arm]["front"], arm != study.baseline))
    points = {arm: (row["x"], row["y"], row["sd"] if math.isfinite(row["sd"]) else 0.0) for arm, row in rows.items()}
    label_points(ax, points, named, {arm: found[arm].colour if found[arm].named else GREY for arm in rows}, short_names(study))


def _point(ax: Axes, row: Mapping[Any, Any], mark: Mark) -> None:
    x, y, on_front = row["x"], row["y"], row["front"]
    colour = mark.colour if mark.named or not on_front else GREY
    if math.isfinite(row["sd"]):
        ax.plot([x, x], [y - row["sd"], y + row["sd"]], color=colour, lw=1, alpha=0.7, zorder=2)
    if row["low"] < row["high"]:
        ax.plot([row["low"], row["high"]], [y, y], color=colour, lw=1, alpha=0.7, zorder=2)
    ax.plot([x], [y], mark.marker, color=colour, ms=6.5 if mark.named else 5, zorder=3)
    if on_front:
        ax.plot([x], [y], "o", mfc="none", mec=GREY, ms=12, mew=0.9, zorder=2)


def _rates(study: Comparison) -> pd.DataFrame:
    """Tokens per second with their ends: as the turns have them, else as in training."""
    if study.in_turns:
        return study.speeds[list(RATE)]
    mean, sd = study.arms["tokens_per_s"], study.arms["tokens_per_s_sd"]
    return pd.DataFrame({"mean": mean, "low": mean - sd, "high": mean + sd})


def _room_for(arms: pd.DataFrame) -> tuple[float, float]:
    """From the lowest to the highest bar of the arms that are not far outside the others."""
    near = arms[arms["mean"].between(*fence(arms["mean"]))]
    sd = near["sd"].fillna(0.0)
    low, high = float((near["mean"] - sd).min()), float((near["mean"] + sd).max())
    return (low, high) if high > low else (low - 0.1, high + 0.1)
