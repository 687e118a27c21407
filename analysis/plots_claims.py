"""The predictions of a registered question as a figure: what was measured of each, and what would have counted."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from analysis import answer
from analysis.comparison import Comparison
from analysis.labels import label_room
from analysis.plots import MARKS
from analysis.style import BLACK, GREY, WIDTH, Drawing, short, styled
from runs.job.record import COSTS

KINDS = {True: "good", False: "bad", None: "open"}
ROW, HEAD, FOOT = 0.3, 0.42, 0.55  # inches
RIGHT = 0.46  # of the width, for the columns of text


@styled
def claims(study: Comparison) -> Drawing | None:
    """A panel per metric, numbers apart from differences; a row per prediction: interval, margin. None: nothing has noise."""
    rows = [row for row in answer.rows(study) if row["metric"] not in COSTS]
    if not rows:
        return None
    panels = [(row["metric"], isinstance(row["predicted"], str)) for row in rows]  # a difference has not the axis of a number
    groups = [[row for row, its in zip(rows, panels, strict=True) if its == panel] for panel in dict.fromkeys(panels)]
    heights = [ROW * len(group) + HEAD + FOOT for group in groups]
    whole, left, bottom = sum(heights), label_room([row["name"] for row in rows]), sum(heights)
    figure = Figure(figsize=(WIDTH, whole))
    for group, height in zip(groups, heights, strict=True):
        bottom -= height
        ax = figure.add_axes((left, (bottom + FOOT) / whole, 1 - left - RIGHT, ROW * len(group) / whole))
        _panel(ax, group, study.baseline)
    names = ["arm", "against", "metric", "predicted", "margin", "measured", "low", "high", "n", "verdict", "holds"]
    alt = (
        "Predictions and measurements: " + "; ".join(f"{row['name']} {row['amounts']} {row['word']}" for row in rows[:12]) + "."
    )
    caption = (
        "Each row is a prediction with its 95 % interval. Blue circles came out as predicted, orange squares did not, hollow "
        "diamonds are open. Grey band: differences too small to matter; grey bracket: the number that was predicted."
    )
    return Drawing("claims", "What was predicted", caption, alt, pd.DataFrame(rows)[names], figure)


def _panel(ax: Axes, rows: list[dict[str, Any]], baseline: str) -> None:
    absolute = [not isinstance(row["predicted"], str) for row in rows]
    ax.set_ylim(len(rows) - 0.4, -0.6)
    ax.set_yticks(range(len(rows)), [short(row["name"]) for row in rows])
    ax.tick_params(axis="y", length=0)
    ax.grid(axis="y", visible=False)
    ax.spines["left"].set_visible(False)
    for y, row in enumerate(rows):
        if isinstance(row["predicted"], str):
            ax.fill_betweenx([y - 0.5, y + 0.5], -row["margin"], row["margin"], color="#e4e7eb", lw=0, zorder=0)
        else:
            ends = [row["predicted"] - row["margin"], row["predicted"] + row["margin"]]
            ax.plot(ends, [y, y], "|-", color=GREY, ms=12, lw=0.7)
        if math.isfinite(row["measured"]):
            marker, edge, face = MARKS[KINDS[row["holds"]]]
            ax.plot([row["low"], row["high"]], [y, y], color=edge, lw=1.7, solid_capstyle="butt")
            ax.plot([row["measured"]], [y], marker, color=edge, mfc=face, ms=6.5, mew=1.3)
    if not all(absolute):
        ax.axvline(0, color=BLACK, lw=1)
    one = all(row["against"] in (baseline, None) for row in rows)
    what = "" if all(absolute) else f", difference from {short(baseline)}" if one else ", difference"
    ax.set_xlabel(f"{rows[0]['metric']}{what}")
    style: dict[str, Any] = {"transform": ax.get_yaxis_transform(), "va": "center", "fontsize": 8.5}
    share = RIGHT / ax.get_position().width
    places = {"expected": 1 + 0.04 * share, "amounts": 1 + 0.78 * share, "word": 1 + 0.8 * share}
    for name, head in (("expected", "predicted"), ("amounts", "measured [95 %]"), ("word", "verdict")):
        side = "right" if name == "amounts" else "left"
        ax.text(places[name], -1, head, fontweight="bold", ha=side, **style)
        for y, row in enumerate(rows):
            text = row[name].replace(f" in {row['metric']}", "").replace(f"{row['metric']} ", "")
            ax.text(places[name], y, text.partition(", ")[0] if name == "word" else short(text, 33), ha=side, **style)
